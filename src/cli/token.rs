//! `lbproxy token operator` creates an operator's key pair, `lbproxy token mint` a token signed by it, and `lbproxy
//! token show` shows what a token allows. This is the only command that depends on the wall clock, since a token
//! expires at a date.

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::secret;
use crate::discovery::gossip::secrets;
use crate::gossip::record::MAX_WEIGHT;
use crate::gossip::token::{
    AgentCredential, Claims, MAX_BACKENDS, OperatorKey, Token, agent_id, mint_with,
};
use crate::model::units::{parse_duration, show_duration};

/// Longest lifetime of a token.
const MAX_TTL: Duration = Duration::from_secs(3650 * 86_400);

/// The subcommands of `lbproxy token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create an operator: writes NAME.key, which signs tokens, and NAME.pub, with which proxies verify them.
    Operator {
        /// Path of both files, without `.key` and `.pub`; neither may exist.
        #[arg(long, value_name = "NAME")]
        out: PathBuf,
    },
    /// Create a token for an agent, on standard output or in a file. It is the agent's secret; `token show` shows its
    /// id.
    Mint(Box<Mint>),
    /// Show what a token allows, and its id, which `revoked` uses.
    Show {
        /// File with the agent's token.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// What a new token allows.
#[derive(Debug, Args)]
pub struct Mint {
    /// File with the operator's private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The cluster that the agent may announce backends for.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Where its backends and the agent itself may be: a network such as 10.1.0.0/16, or an address; up to 8 times.
    #[arg(
        long = "cidr",
        value_name = "NETWORK",
        required_unless_present = "backend_cidrs"
    )]
    cidrs: Vec<String>,
    /// Where its backends may be, instead of --cidr; up to 8 times.
    #[arg(
        long = "backend-cidr",
        value_name = "NETWORK",
        conflicts_with = "cidrs"
    )]
    backend_cidrs: Vec<String>,
    /// Where the agent itself may be, if not in the same networks; up to 8 times.
    #[arg(long = "agent-cidr", value_name = "NETWORK")]
    agent_cidrs: Vec<String>,
    /// The label of the only peer set in which the token is valid; by default, all whose proxies know the operator.
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// How many backends may be announced with the token at a time; by default, any number.
    #[arg(long, value_name = "N")]
    max_backends: Option<String>,
    /// The largest weight of a backend, 1 to 1000.
    #[arg(long, value_name = "WEIGHT")]
    max_weight: String,
    /// How long the token is valid, such as 30d or 12h; at most 3650d.
    #[arg(long, value_name = "DURATION")]
    ttl: String,
    /// Write the token to this new file instead, which only its owner can read.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs `lbproxy token`.
pub fn run(command: &TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Operator { out } => operator(out),
        TokenCommand::Mint(wanted) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.context("the clock is before 1970")?;
            let credential = minted(wanted, now.as_secs(), &secret::random()?)?;
            secret::put(wanted.out.as_deref(), &credential.to_text())
        }
        TokenCommand::Show { file } => {
            let mut out = std::io::stdout().lock();
            let text = shown(secrets::credential(file)?.token());
            let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            written.context("cannot write to standard output")
        }
    }
}

fn operator(out: &Path) -> anyhow::Result<()> {
    let [private, public] = [".key", ".pub"].map(|end| {
        let mut name = OsString::from(out);
        name.push(end);
        PathBuf::from(name)
    });
    let key = OperatorKey::generate(&secret::random()?);
    secret::create(&private, secret::PRIVATE, &key.to_text())?;
    let created = secret::create(&public, secret::PUBLIC, &key.public().to_text());
    if created.is_err() {
        // A private key without its public key is useless, and would make the next attempt fail.
        let _ = std::fs::remove_file(&private);
    }
    created
}

/// Formats what a token allows, one line for each claim.
fn shown(token: &Token) -> String {
    let list = |cidrs: &[IpNet]| {
        let texts: Vec<String> = cidrs.iter().map(IpNet::to_string).collect();
        texts.join(" ")
    };
    let claims = token.claims();
    let expires = UNIX_EPOCH.checked_add(Duration::from_secs(token.expires()));
    // The last second of the year 9999; later dates cannot be formatted.
    let last = 253_402_300_799;
    let expires = match expires {
        Some(expires) if token.expires() <= last => {
            humantime::format_rfc3339_seconds(expires).to_string()
        }
        _ => "never".to_owned(),
    };
    let agents = match &claims.agent_cidrs[..] {
        [] => token.cidrs(),
        cidrs => cidrs,
    };
    let label = claims.label.as_ref();
    let lines = [
        ("id", agent_id(token.agent())),
        ("cluster", token.cluster().to_owned()),
        (
            "label",
            label.map_or("any".to_owned(), |label| format!("{label:?}")),
        ),
        ("backends in", list(token.cidrs())),
        ("agents in", list(agents)),
        (
            "max backends",
            claims
                .max_backends
                .map_or("any number".to_owned(), |n| n.to_string()),
        ),
        ("max weight", token.max_weight().to_string()),
        ("expires", expires),
    ];
    lines.iter().fold(String::new(), |text, (name, value)| {
        text + &format!("{name:<13}{value}\n")
    })
}

/// Creates a token; `now` is in Unix seconds.
fn minted(wanted: &Mint, now: u64, seed: &[u8; 32]) -> anyhow::Result<AgentCredential> {
    let networks = |flag: &str, texts: &[String]| -> anyhow::Result<Vec<IpNet>> {
        texts.iter().map(|text| network(flag, text)).collect()
    };
    let mut cidrs = networks("--cidr", &wanted.cidrs)?;
    cidrs.extend(networks("--backend-cidr", &wanted.backend_cidrs)?);
    let claims = Claims {
        label: wanted.label.clone(),
        max_backends: wanted.max_backends.as_deref().map(backends).transpose()?,
        agent_cidrs: networks("--agent-cidr", &wanted.agent_cidrs)?,
    };
    let max_weight = weight(&wanted.max_weight)?;
    let expires = now + ttl(&wanted.ttl)?;
    let text = secrets::read(&wanted.key)?;
    let operator = OperatorKey::parse(&text).with_context(|| {
        format!(
            "{} is not an operator's private key",
            secrets::shown(&wanted.key)
        )
    })?;
    let credential = mint_with(
        &operator,
        seed,
        &wanted.cluster,
        &cidrs,
        max_weight,
        expires,
        claims,
    );
    credential.context("cannot mint this token")
}

/// Parses a network or a single address. Bits after the prefix are an error, since the network grants a permission.
fn network(flag: &str, text: &str) -> anyhow::Result<IpNet> {
    let single = text.parse::<IpAddr>().map(IpNet::from);
    let Ok(network) = single.or_else(|_| text.parse::<IpNet>()) else {
        bail!("{flag} {text:?}: expected a network such as 10.1.0.0/16 or fd00::/8, or an address");
    };
    let truncated = network.trunc();
    ensure!(
        truncated == network,
        "{flag} {text:?} has bits after the prefix; write {truncated}, or {} for the single address",
        network.addr()
    );
    Ok(network)
}

fn backends(text: &str) -> anyhow::Result<u16> {
    let count = text.parse().ok();
    count
        .filter(|count| (1..=MAX_BACKENDS).contains(count))
        .with_context(|| {
            format!("--max-backends {text:?}: expected a number from 1 to {MAX_BACKENDS}")
        })
}

fn weight(text: &str) -> anyhow::Result<u16> {
    let weight = text.parse().ok();
    weight
        .filter(|weight| (1..=MAX_WEIGHT).contains(weight))
        .with_context(|| format!("--max-weight {text:?}: expected a number from 1 to {MAX_WEIGHT}"))
}

/// Parses a lifetime, in seconds.
fn ttl(text: &str) -> anyhow::Result<u64> {
    let ttl = parse_duration(text)
        .with_context(|| format!("--ttl {text:?}: expected a duration such as 30d or 12h"))?;
    ensure!(
        (Duration::from_secs(1)..=MAX_TTL).contains(&ttl),
        "--ttl {text:?}: expected 1s to {}",
        show_duration(MAX_TTL)
    );
    Ok(ttl.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::token::{AgentCredential, Authority};

    const NOW: u64 = 1_800_000_000;

    /// A directory with a key file, and arguments that use it.
    fn wanted() -> (tempfile::TempDir, Mint) {
        let folder = tempfile::tempdir().unwrap();
        operator(&folder.path().join("operator")).unwrap();
        let mint = Mint {
            key: folder.path().join("operator.key"),
            cluster: "api".to_owned(),
            cidrs: vec!["10.1.0.0/16".to_owned(), "192.0.2.7".to_owned()],
            max_weight: "200".to_owned(),
            ttl: "1d12h".to_owned(),
            out: None,
            backend_cidrs: vec![],
            agent_cidrs: vec![],
            label: None,
            max_backends: None,
        };
        (folder, mint)
    }

    #[test]
    fn a_token_has_the_requested_claims() {
        let (_folder, wanted) = wanted();
        let credential = minted(&wanted, NOW, &[5; 32]).unwrap();
        let token = credential.token();
        assert_eq!((token.cluster(), token.max_weight()), ("api", 200));
        assert_eq!(token.expires(), NOW + 36 * 3600);
        let cidrs = ["10.1.0.0/16", "192.0.2.7/32"].map(|text| text.parse().unwrap());
        assert_eq!(token.cidrs(), cidrs);
        let key = OperatorKey::parse(&secrets::read(&wanted.key).unwrap()).unwrap();
        let authority = Authority::new(key.public());
        assert_eq!(authority.verify_token(token, NOW), Ok(()));
    }

    #[test]
    fn a_restricted_token_is_shown_with_its_restrictions() {
        let (_folder, mut wanted) = wanted();
        let plain = minted(&wanted, NOW, &[5; 32]).unwrap();
        let lines = |credential: &AgentCredential| shown(credential.token());
        let id = agent_id(plain.token().agent());
        assert_eq!(
            lines(&plain),
            format!(
                "id           {id}\ncluster      api\nlabel        any\nbackends in  10.1.0.0/16 192.0.2.7/32\n\
                 agents in    10.1.0.0/16 192.0.2.7/32\nmax backends any number\nmax weight   200\n\
                 expires      2027-01-16T20:00:00Z\n"
            )
        );
        wanted.backend_cidrs = std::mem::take(&mut wanted.cidrs);
        wanted.agent_cidrs = vec!["10.9.0.0/16".to_owned()];
        (wanted.label, wanted.max_backends) = (Some("prod".to_owned()), Some("3".to_owned()));
        let narrow = minted(&wanted, NOW, &[5; 32]).unwrap();
        let shown = lines(&narrow);
        for line in [
            "label        \"prod\"\n",
            "backends in  10.1.0.0/16 192.0.2.7/32\n",
            "agents in    10.9.0.0/16\n",
            "max backends 3\n",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
        assert_eq!(
            AgentCredential::parse(&narrow.to_text()).unwrap().token(),
            narrow.token()
        );
    }

    #[test]
    fn invalid_arguments_are_refused() {
        let (_folder, good) = wanted();
        let set = |change: fn(&mut Mint)| {
            let mut wanted = Mint {
                key: good.key.clone(),
                cluster: good.cluster.clone(),
                cidrs: good.cidrs.clone(),
                max_weight: good.max_weight.clone(),
                ttl: good.ttl.clone(),
                out: None,
                backend_cidrs: vec![],
                agent_cidrs: vec![],
                label: None,
                max_backends: None,
            };
            change(&mut wanted);
            let error = minted(&wanted, NOW, &[5; 32]).unwrap_err();
            format!("{error:#}")
        };
        for (change, expected) in [
            (
                (|w| w.cidrs[0] = "10.1.0.0/33".to_owned()) as fn(&mut Mint),
                "--cidr \"10.1.0.0/33\": expected a network",
            ),
            (
                |w| w.cidrs[0] = "10.1.2.3/16".to_owned(),
                "bits after the prefix; write 10.1.0.0/16, or 10.1.2.3 for the single address",
            ),
            (|w| w.max_weight = "0".to_owned(), "from 1 to 1000"),
            (|w| w.max_weight = "1001".to_owned(), "from 1 to 1000"),
            (
                |w| w.max_weight = "many".to_owned(),
                "--max-weight \"many\"",
            ),
            (|w| w.ttl = "30".to_owned(), "it has no unit"),
            (|w| w.ttl = "0s".to_owned(), "expected 1s to 3650d"),
            (|w| w.ttl = "999ms".to_owned(), "expected 1s to 3650d"),
            (|w| w.ttl = "3651d".to_owned(), "expected 1s to 3650d"),
            (|w| w.cluster = String::new(), "the cluster is not"),
            (
                |w| w.backend_cidrs = vec!["x".to_owned()],
                "--backend-cidr \"x\": expected a network",
            ),
            (
                |w| w.agent_cidrs = vec!["10.1.2.3/16".to_owned()],
                "--agent-cidr \"10.1.2.3/16\" has bits after",
            ),
            (
                |w| w.max_backends = Some("0".to_owned()),
                "--max-backends \"0\": expected a number from 1 to 10000",
            ),
            (
                |w| w.label = Some("l".repeat(65)),
                "the label is not 0 to 64",
            ),
            (
                |w| w.cidrs = (0..9).map(|i| format!("10.0.0.{i}")).collect(),
                "the networks are not 1 to 8",
            ),
            (|w| w.key.push("x"), "cannot read"),
            (
                |w| w.key = w.key.with_extension("pub"),
                "is not an operator's private key: it does not begin with `lbproxy-operator-1.`",
            ),
            (
                |w| w.key = "/dev/zero".into(),
                "it is a device, not a regular file",
            ),
            (
                |w| w.key = "lbproxy-operator-1.AAAA".into(),
                "cannot read that file (a key or token was given, not the path of its file)",
            ),
        ] {
            let error = set(change);
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
            assert!(!error.contains("AAAA"), "{error}");
        }
    }
}
