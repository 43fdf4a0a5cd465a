//! The file of an agent, in which all keys are at the top.

use super::Otherwise::{Absent, Is, Required};
use super::gossip::{ADDRESS, FILE, FILES, LABEL, SEEDS};
use super::{Section, boolean, bounded, duration, form, integer, list, seconds, word};
use crate::config::limits::{FROM_ZERO, MAX_KEYS, PERIOD};
use crate::gossip::record::MAX_WEIGHT;
use crate::model::settings::LogLevel;

pub(crate) static AGENT: Section = Section {
    name: "an agent's file",
    shape: "a table",
    meant: &[],
    intro: (
        "The file of an agent",
        "What `lbproxy agent --config agent.toml` reads: all keys are at the top, and flags of the same names (with `-` for \
         `_`) override them. Files are relative to this file; those with a key or a token are read again when they \
         change.\n\n\
         ```toml agent\ncluster = \"web\"\nbackend = \"10.0.0.7:8080\"\naddress = \"10.0.0.7:7946\"\n\
         seeds = [\"10.0.0.5:7946\"]\nkey_file = \"gossip.key\"\ncheck = \"http://127.0.0.1:8080/healthz\"\n```\n",
    ),
    keys: &[
        form(
            "cluster",
            "the name that proxies discover, in quotes",
            Required,
            "What proxies discover: `discover = { gossip = \"web\" }`. 1 to 64 bytes.",
        ),
        form(
            "backend",
            "an address such as \"10.0.0.7:8080\"",
            Required,
            "Where the proxies reach the service.",
        ),
        integer(
            "weight",
            0..=MAX_WEIGHT as u64,
            Is(1),
            "Its share of the traffic. With weight 0 it takes nothing new.",
        ),
        form(
            "zone",
            "a zone, in quotes",
            Is("\"\""),
            "Zone of the service, at most 32 bytes.",
        ),
        form(
            "name",
            "a name, in quotes",
            Absent("the host's name"),
            "Name of the agent, for people; 1 to 64 bytes.",
        ),
        form(
            "build",
            "a version, in quotes",
            Is("\"\""),
            "Version of the service, for people; at most 32 bytes.",
        ),
        form(
            "check",
            "a URL such as \"http://127.0.0.1:8080/healthz\"",
            Absent("ready as long as the agent runs"),
            "How the service is checked: `http://host:port/path` or `tcp://host:port`. It fails after two failed checks.",
        ),
        duration(
            "interval",
            PERIOD,
            seconds(1),
            "Time between the starts of two checks.",
        ),
        duration("timeout", PERIOD, seconds(1), "Time for a whole check."),
        form(
            "address",
            ADDRESS,
            Required,
            "Where the agent listens, on UDP and TCP.",
        ),
        form(
            "advertise",
            ADDRESS,
            Absent("`address`"),
            "Where others reach it, and its name among them.",
        ),
        list(
            "seeds",
            SEEDS[0],
            SEEDS[1],
            Is("[]"),
            "Members that are contacted first.",
        ),
        form(
            "label",
            LABEL,
            Is("\"\""),
            "Name of the peer set, at most 64 bytes.",
        ),
        bounded(
            MAX_KEYS,
            list(
                "key_file",
                FILES,
                FILE,
                Absent("no key, which only a loopback `address` may do without"),
                "The key of the set, or several: the first seals, all of them open.",
            ),
        ),
        form(
            "token_file",
            FILE,
            Absent("no token"),
            "The operator's token, which proxies with a `token_key` ask for.",
        ),
        boolean(
            "insecure_plaintext",
            false,
            "Accept packets that are not sealed, and without a key send them, even if `address` is not loopback.",
        ),
        duration(
            "drain_timeout",
            FROM_ZERO,
            seconds(30),
            "How long the service may continue after it has been announced as draining.",
        ),
        duration(
            "drain_delay",
            FROM_ZERO,
            seconds(1),
            "Time from the announced drain to the stop of the process that the agent runs.",
        ),
        boolean(
            "once",
            false,
            "Run the process once, and end with its exit code. Needs a process to run.",
        ),
        word::<LogLevel>("level", "Least level of events that are logged, to stderr."),
    ],
};
