//! `[gossip]`.

use super::Otherwise::{Absent, Is, Required};
use super::{Section, boolean, bounded, form, list};
use crate::config::limits::{MAX_CIDRS, MAX_KEYS, MAX_REVOKED};

/// What the declarations of a proxy and an agent have in common: both are members of a peer set.
pub(super) const ADDRESS: &str = "an address such as \"10.0.0.5:7946\"";
pub(super) const SEEDS: [&str; 2] = [
    "an array of addresses, such as [\"10.0.0.6:7946\", \"seeds.internal:7946\"]",
    "an address such as \"10.0.0.6:7946\" or \"seeds.internal:7946\"",
];
pub(super) const LABEL: &str = "a label, in quotes";
pub(super) const FILE: &str = "the path of a file";
pub(super) const FILES: &str = "the path of a file, or an array of them";

pub(crate) static GOSSIP: Section = Section {
    name: "[gossip]",
    shape: "a table",
    meant: &[],
    intro: (
        "`[gossip]`",
        "This proxy's place in a peer set, in which agents announce backends for clusters that \
         [`discover`](#discover) them. Members share a key; sets with other keys or labels never mix. Files are relative to \
         the configuration, and those with keys are read again when they change.\n\n\
         ```toml fragment\n[gossip]\naddress = \"10.0.0.5:7946\"\nseeds = [\"10.0.0.6:7946\"]\nlabel = \"prod\"\n\
         key_file = \"gossip.key\"\nallow_cidrs = [\"10.0.0.0/8\"]\n\n[cluster.web]\ndiscover = { gossip = \"web\" }\n\
         check = { http = \"/healthz\" }\n```\n",
    ),
    keys: &[
        form(
            "address",
            ADDRESS,
            Required,
            "Where this member listens, on UDP and TCP.",
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
            "Members that are contacted first. All members may have the same list: each leaves itself out.",
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
        bounded(
            MAX_KEYS,
            list(
                "key_files",
                "an array of files, such as [\"gossip.key\"]",
                FILE,
                Absent("see `key_file`"),
                "Older name of `key_file`, for an array.",
            ),
        ),
        bounded(
            MAX_KEYS,
            list(
                "token_key",
                FILES,
                FILE,
                Absent("any member with the key may announce"),
                "Public keys of operators, one or several. Agents then need a token of one of them.",
            ),
        ),
        bounded(
            MAX_REVOKED,
            list(
                "revoked",
                "an array of ids of tokens, such as [\"4d578e3854036caf\"]",
                "the id of a token, or at least its first 4 hexadecimal digits",
                Is("[]"),
                "Tokens that are no longer accepted: their ids, or what these begin with.",
            ),
        ),
        bounded(
            MAX_CIDRS,
            list(
                "allow_cidrs",
                "an array of networks, such as [\"10.0.0.0/8\"]",
                "a network such as \"10.0.0.0/8\" or \"fd00::/8\", or an address",
                Is("[]"),
                "Networks where announced backends may live; an announced backend elsewhere is refused. Loopback counts \
                 only if it is listed.",
            ),
        ),
        boolean(
            "insecure_plaintext",
            false,
            "Accept packets that are not sealed, and without a key send them, even if `address` is not loopback.",
        ),
        form(
            "members_file",
            FILE,
            Absent("`lb.members.json` in `state_dir`"),
            "Where the last good set is kept, for a start without peers.",
        ),
    ],
};
