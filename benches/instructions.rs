//! How many instructions the same things take that `head`, `pick` and `route` measure the time of. A count hardly changes
//! from run to run, so that two commits can be compared on any machine.
//!
//! `cargo bench --bench instructions`. Each run says by how much it differs from the one before. Needs valgrind, and
//! `cargo install gungraun-runner --version 0.20.0`; without them it says so and measures nothing.

use std::process::{Command, ExitCode, Stdio};

#[expect(dead_code, reason = "names are for the reports of criterion")]
#[path = "support/heads.rs"]
mod heads;
#[expect(dead_code, reason = "each figure names its policy")]
#[path = "support/members.rs"]
mod members;
#[path = "support/rules.rs"]
mod rules;

fn main() -> ExitCode {
    // The runner starts this program again under valgrind, once for each figure.
    let is_counted = std::env::args().any(|word| word.starts_with("--gungraun-run"));
    let runner = std::env::var("GUNGRAUN_RUNNER").unwrap_or_else(|_| "gungraun-runner".to_owned());
    if !is_counted {
        for (program, advice) in [
            ("valgrind", "the package valgrind has it"),
            (
                &runner,
                "`cargo install gungraun-runner --version 0.20.0` has it",
            ),
        ] {
            if !is_there(program) {
                println!("instructions: not counted, since there is no {program} here; {advice}");
                return ExitCode::SUCCESS;
            }
        }
    }
    counted::run();
    ExitCode::SUCCESS
}

fn is_there(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

#[expect(
    unused_qualifications,
    reason = "the attributes of gungraun write paths that need none"
)]
mod counted {
    use std::hint::black_box;
    use std::net::{IpAddr, Ipv4Addr};

    use gungraun::{library_benchmark, library_benchmark_group};
    use lbproxy::internals::balance::{Balancer, PickRequest, Random};
    use lbproxy::internals::http1::chunked::Decoder;
    use lbproxy::internals::http1::head::Field;
    use lbproxy::internals::http1::{request, response};
    use lbproxy::internals::model::cluster::ClusterState;
    use lbproxy::internals::model::settings::Policy;
    use lbproxy::internals::proxy::http::{
        ForwardHead, ForwardedRequest, Persistence, RequestEdits, ResponseEdits, complete_request,
        write_response,
    };
    use lbproxy::internals::route::table::Table;

    use super::heads::{
        BODY_BYTES, LIMITS, REQUEST_ID, Size, chunked, request_head, response_head,
    };
    use super::members::members;
    use super::rules::{KINDS, questions, rules, view};

    const EDITS: RequestEdits<'static> = RequestEdits {
        peer: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        id: REQUEST_ID,
        process: b"0123456789abcdef",
        via: false,
    };
    /// Times that a pick or a look-up is done for one figure.
    const TIMES: usize = 100;

    /// A head, and the buffers that are used again in service.
    struct Warm {
        head: Vec<u8>,
        fields: Vec<Field>,
        forwarded: ForwardHead,
        out: Vec<u8>,
    }

    fn warm(head: Vec<u8>) -> Warm {
        Warm {
            head,
            fields: Vec::with_capacity(100),
            forwarded: ForwardHead::with_capacity(16 << 10),
            out: Vec::with_capacity(16 << 10),
        }
    }

    fn request_of(size: Size) -> Warm {
        warm(request_head(size))
    }

    fn response_of(size: Size) -> Warm {
        warm(response_head(size))
    }

    #[library_benchmark(setup = request_of)]
    #[bench::small(Size::Small)]
    #[bench::browser(Size::Browser)]
    #[bench::large(Size::Large)]
    fn parse_and_write_a_request(mut warm: Warm) -> Warm {
        let buffer = black_box(warm.head.as_slice());
        if let Ok(Some(head)) = request::parse(buffer, &LIMITS, &mut warm.fields) {
            let request = ForwardedRequest {
                head: &head,
                buffer,
                fields: &warm.fields,
                trusted: false,
            };
            warm.forwarded.write(&request, &EDITS);
            complete_request(&mut warm.forwarded);
        }
        assert!(!warm.forwarded.text().is_empty());
        warm
    }

    #[library_benchmark(setup = response_of)]
    #[bench::small(Size::Small)]
    #[bench::browser(Size::Browser)]
    #[bench::large(Size::Large)]
    fn parse_and_write_a_response(mut warm: Warm) -> Warm {
        let buffer = black_box(warm.head.as_slice());
        if let Ok(Some(head)) = response::parse(buffer, false, &mut warm.fields) {
            let edits = ResponseEdits::plain(head.framing, Persistence::KeepFor(74));
            write_response(&mut warm.out, &head, buffer, &warm.fields, &edits);
        }
        assert!(!warm.out.is_empty());
        warm
    }

    #[library_benchmark(setup = chunked)]
    #[bench::one_chunk(BODY_BYTES)]
    #[bench::chunks_of_64(64)]
    fn take_apart_a_chunked_body(mut body: Vec<u8>) -> Vec<u8> {
        let decoded = Decoder::new(1024, true).decode_in_place(&mut body);
        assert!(black_box(decoded).is_ok_and(|decoded| decoded.done));
        body
    }

    struct Picking {
        balancer: Balancer,
        state: ClusterState,
        random: Random,
        keys: Vec<u64>,
    }

    fn picking(policy: Policy, count: u32) -> Picking {
        let keys = Random::new(2);
        Picking {
            balancer: Balancer::new(policy, 0, members(count)),
            state: ClusterState::new(1),
            random: Random::new(1),
            keys: (0..TIMES).map(|_| keys.next_u64()).collect(),
        }
    }

    #[library_benchmark(setup = picking)]
    #[bench::round_robin_3(Policy::RoundRobin, 3)]
    #[bench::round_robin_100(Policy::RoundRobin, 100)]
    #[bench::round_robin_10000(Policy::RoundRobin, 10_000)]
    #[bench::least_connections_3(Policy::LeastConnections, 3)]
    #[bench::least_connections_100(Policy::LeastConnections, 100)]
    #[bench::least_connections_10000(Policy::LeastConnections, 10_000)]
    #[bench::consistent_hash_3(Policy::ConsistentHash, 3)]
    #[bench::consistent_hash_100(Policy::ConsistentHash, 100)]
    #[bench::consistent_hash_10000(Policy::ConsistentHash, 10_000)]
    #[bench::random_3(Policy::Random, 3)]
    #[bench::random_100(Policy::Random, 100)]
    #[bench::random_10000(Policy::Random, 10_000)]
    #[bench::power_of_two_3(Policy::PowerOfTwo, 3)]
    #[bench::power_of_two_100(Policy::PowerOfTwo, 100)]
    #[bench::power_of_two_10000(Policy::PowerOfTwo, 10_000)]
    fn pick_100_times(picking: Picking) -> Picking {
        for key in &picking.keys {
            let picked = picking.balancer.pick(&PickRequest {
                key: *key,
                state: &picking.state,
                worker: 0,
                random: &picking.random,
                tried: &[],
            });
            assert!(black_box(picked).is_some());
        }
        picking
    }

    struct Finding {
        table: Table<usize>,
        asked: Vec<(String, String)>,
    }

    fn finding(kind: &str, count: usize) -> Finding {
        let kind = KINDS.iter().find(|(name, _)| *name == kind);
        let kind = kind.expect("a kind of the list").1;
        let mut asked = questions(kind, count);
        asked = asked.into_iter().cycle().take(TIMES).collect();
        Finding {
            table: Table::new(rules(kind, count)),
            asked,
        }
    }

    #[library_benchmark(setup = finding)]
    #[bench::host_10("host", 10)]
    #[bench::host_1000("host", 1000)]
    #[bench::host_10000("host", 10_000)]
    #[bench::prefix_10("prefix", 10)]
    #[bench::prefix_1000("prefix", 1000)]
    #[bench::prefix_10000("prefix", 10_000)]
    fn find_100_routes(finding: Finding) -> Finding {
        for (host, path) in &finding.asked {
            assert!(black_box(finding.table.find(&view(host, path))).is_some());
        }
        finding
    }

    library_benchmark_group!(
        name = instructions,
        benchmarks = [
            parse_and_write_a_request,
            parse_and_write_a_response,
            take_apart_a_chunked_body,
            pick_100_times,
            find_100_routes
        ]
    );

    gungraun::main!(library_benchmark_groups = instructions);

    /// The generated `main` is private to its module.
    pub(crate) fn run() {
        main();
    }
}
