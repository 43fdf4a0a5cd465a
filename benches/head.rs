//! What a head costs: parsing a request, parsing and writing it anew for a backend, the same of a response; and taking
//! a chunked body of 16 KiB apart.
//!
//! `cargo bench --bench head`. Heads are as curl sends them, as a browser does (15 fields, about 700 bytes), and large
//! (60 fields, 8 KiB). Output goes to a buffer that is used again, as in service.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lbproxy::internals::http1::chunked::Decoder;
use lbproxy::internals::http1::{request, response};
use lbproxy::internals::proxy::http::{
    ForwardHead, ForwardedRequest, Persistence, RequestEdits, ResponseEdits, complete_request,
    write_response,
};

#[path = "support/heads.rs"]
mod heads;
use heads::{BODY_BYTES, LIMITS, REQUEST_ID, Size, chunked, request_head, response_head};

const EDITS: RequestEdits<'static> = RequestEdits {
    peer: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
    id: REQUEST_ID,
    process: b"0123456789abcdef",
    via: false,
};

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    for size in Size::ALL {
        let bytes = request_head(size);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut fields = Vec::new();
        group.bench_function(BenchmarkId::new("parse", size.name()), |b| {
            b.iter(|| {
                let parsed = request::parse(black_box(&bytes), &LIMITS, &mut fields);
                black_box(parsed).is_ok()
            });
        });
        let mut forwarded = ForwardHead::default();
        group.bench_function(BenchmarkId::new("parse and write", size.name()), |b| {
            b.iter(|| {
                let buffer = black_box(bytes.as_slice());
                let head = request::parse(buffer, &LIMITS, &mut fields)
                    .expect("the head is right")
                    .expect("the head is whole");
                let request = ForwardedRequest {
                    head: &head,
                    buffer,
                    fields: &fields,
                    trusted: false,
                };
                black_box(forwarded.write(&request, &EDITS));
                complete_request(&mut forwarded);
                black_box(forwarded.text().len())
            });
        });
    }
    group.finish();
}

fn responses(c: &mut Criterion) {
    let mut group = c.benchmark_group("response");
    for size in Size::ALL {
        let bytes = response_head(size);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut fields = Vec::new();
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("parse and write", size.name()), |b| {
            b.iter(|| {
                let buffer = black_box(bytes.as_slice());
                let head = response::parse(buffer, false, &mut fields)
                    .expect("the head is right")
                    .expect("the head is whole");
                out.clear();
                let edits = ResponseEdits::plain(head.framing, Persistence::KeepFor(74));
                write_response(&mut out, &head, buffer, &fields, &edits);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn bodies(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunked");
    group.throughput(Throughput::Bytes(BODY_BYTES as u64));
    for chunk in [BODY_BYTES, 64] {
        let body = chunked(chunk);
        group.bench_function(BenchmarkId::new("decode", chunk), |b| {
            b.iter_batched_ref(
                || body.clone(),
                |body| {
                    let decoded = Decoder::new(1024, true).decode_in_place(body);
                    black_box(decoded).is_ok_and(|decoded| decoded.done)
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, requests, responses, bodies);
criterion_main!(benches);
