//! Goals: what each says, the figure that was reached, and whether that is enough.

use serde::Serialize;

use super::Row;
use crate::figures::Figures;
use crate::scenarios::{Bound, Goal, Unit};

/// A goal, and how it came out.
#[derive(Serialize)]
pub(crate) struct Verdict {
    pub goal: String,
    /// `None`: one side was not measured.
    pub figure: Option<f64>,
    /// The same made of the proxies' own times, where the cost is a time of the core: a second opinion that other
    /// programs on the core do not reach.
    pub own_figure: Option<f64>,
    /// `None` also where other programs took so much time that the figure means nothing.
    pub met: Option<bool>,
}

/// Time of other programs, as a share of a core, from which on no goal about time is judged.
const DISTURBED: f64 = 0.1;

pub(super) fn verdict(goal: &Goal, unit: Unit, rows: &[Row]) -> Verdict {
    let subject = goal.subject;
    let than = goal.than.join(" or ");
    let name = unit.text();
    let (text, at_least, bound) = match goal.bound {
        Bound::AtMost(bound) => (
            format!("{subject} costs at most {bound:.2} × {than}"),
            false,
            bound,
        ),
        Bound::Ahead(bound) => (
            format!("{than} costs at least {bound:.2} × {subject}"),
            true,
            bound,
        ),
        Bound::MoreBy(bound) => (
            format!("{subject} costs at most {bound:.2} {name} more than {than}"),
            false,
            bound,
        ),
        Bound::Within(bound) => (format!("{subject} at most {bound:.2} {name}"), false, bound),
        Bound::Base(bound) => (
            format!("{subject} at most {bound:.0} MiB before that"),
            false,
            bound,
        ),
        Bound::Pause(bound) => (
            format!("{subject}: a worker runs at most {bound:.0} µs for a reload"),
            false,
            bound,
        ),
    };
    let figure = reached(goal, rows, |figures| figures.cost);
    let of_the_core = matches!(unit, Unit::MicrosPerRequest | Unit::MillisPerGigabyte);
    let disturbed = unit != Unit::KibPerConnection
        && rows.iter().any(|row| {
            let concerned = row.label == subject || goal.than.contains(&row.label.as_str());
            concerned && row.median.foreign > DISTURBED
        });
    Verdict {
        goal: text,
        figure,
        own_figure: of_the_core
            .then(|| reached(goal, rows, |figures| figures.process_cost))
            .flatten(),
        met: figure.filter(|_| !disturbed).map(|figure| {
            if at_least {
                figure >= bound
            } else {
                figure <= bound
            }
        }),
    }
}

/// What a goal bounds, made of one kind of cost, if all that it needs was measured.
fn reached(goal: &Goal, rows: &[Row], cost: fn(&Figures) -> f64) -> Option<f64> {
    let of = |label: &str| rows.iter().find(|row| row.label == label);
    let subject = of(goal.subject)?;
    let cheapest = || {
        let others = goal.than.iter().filter_map(|label| of(label));
        others.min_by(|one, other| cost(&one.median).total_cmp(&cost(&other.median)))
    };
    Some(match goal.bound {
        Bound::AtMost(_) => subject.ratio(cheapest()?, cost),
        Bound::Ahead(_) => cheapest()?.ratio(subject, cost),
        Bound::MoreBy(_) => cost(&subject.median) - cost(&cheapest()?.median),
        Bound::Within(_) => cost(&subject.median),
        Bound::Base(_) => subject.median.resident,
        Bound::Pause(_) => subject.median.p999,
    })
}
