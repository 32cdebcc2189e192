//! The bounds of docs/promises.md, and whether a run keeps them. Ratios and counts only: absolute times differ from
//! machine to machine.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};

use super::loads;
use super::rows::{self, Row};

/// The heading whose table is read.
const HEADING: &str = "## Beside other probers";
/// The promise without which nothing is compared with the floor, and the floor's name.
const FLOOR_IS_ONE: &str = "floor-is-one";
const FLOOR: &str = "floor";
/// Rounds that make a median.
pub const ROUNDS_MIN: u32 = 3;
/// A cell that says nothing.
const NONE: &str = "–";

/// One line of the table.
#[derive(Clone, PartialEq, Debug)]
pub struct Promise {
    pub name: String,
    figure: Figure,
    of: Place,
    /// Divided by the same figure of this one.
    by: Option<Place>,
    bound: Bound,
}

/// A contestant under a load: `defib http-5k`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    contestant: String,
    load: String,
}

#[derive(Copy, Clone, PartialEq, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// What is bound, and how rounds are put together.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Figure {
    /// The median.
    CpuPerProbe,
    /// The median share of the core.
    Cores,
    /// Of all rounds together.
    FalseFailures,
    MissedFailures,
    Inconclusive,
    /// The worst round.
    Achieved,
    LatenessP999ByPeriod,
    ResponseErrorP99ByPeriod,
    BytesPerTarget,
}

impl Figure {
    const ALL: [(&str, Figure); 9] = [
        ("CPU per probe", Figure::CpuPerProbe),
        ("cores", Figure::Cores),
        ("false failures", Figure::FalseFailures),
        ("missed failures", Figure::MissedFailures),
        ("inconclusive", Figure::Inconclusive),
        ("achieved rate", Figure::Achieved),
        ("lateness p99.9 by period", Figure::LatenessP999ByPeriod),
        ("response error p99 by period", Figure::ResponseErrorP99ByPeriod),
        ("bytes per target", Figure::BytesPerTarget),
    ];

    fn parse(text: &str) -> Option<Figure> {
        Figure::ALL.into_iter().find(|(name, _)| *name == text).map(|(_, figure)| figure)
    }

    /// None where a row does not tell it.
    fn value(self, rows: &[&Row]) -> Option<f64> {
        let worst = |values: Vec<Option<f64>>, pick: fn(f64, f64) -> f64| {
            values.into_iter().collect::<Option<Vec<f64>>>()?.into_iter().reduce(pick)
        };
        let total = |count: fn(&Row) -> u64| {
            (!rows.is_empty()).then(|| rows.iter().map(|row| count(row)).sum::<u64>() as f64)
        };
        match self {
            Figure::CpuPerProbe => rows::cpu_us_per_probe(rows),
            Figure::Cores => {
                let rate_per_s = rows::median(rows, |row| Some(row.rate_per_s))?;
                Some(rows::cpu_us_per_probe(rows)? * rate_per_s / 1e6)
            }
            Figure::FalseFailures => total(|row| row.false_failures),
            Figure::MissedFailures => total(|row| row.missed_failures),
            Figure::Inconclusive => total(|row| row.inconclusive),
            Figure::Achieved => worst(rows.iter().map(|row| Some(row.achieved())).collect(), f64::min),
            Figure::LatenessP999ByPeriod => worst(
                rows.iter().map(|row| Some(row.lateness_p999_us? / period_us(row)?)).collect(),
                f64::max,
            ),
            Figure::ResponseErrorP99ByPeriod => worst(
                rows.iter().map(|row| Some(row.response_error_p99_us? / period_us(row)?)).collect(),
                f64::max,
            ),
            Figure::BytesPerTarget => {
                worst(rows.iter().map(|row| Some(row.bytes_per_target)).collect(), f64::max)
            }
        }
    }
}

fn period_us(row: &Row) -> Option<f64> {
    loads::ALL.iter().find(|load| load.name == row.load).map(|load| load.period.as_secs_f64() * 1e6)
}

/// A promise and what a run says of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    pub name: String,
    /// None: the run has not measured it, or what it is compared with failed.
    pub value: Option<f64>,
    bound: Bound,
}

impl Verdict {
    pub fn is_kept(&self) -> bool {
        self.value.is_some_and(|value| match self.bound {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.map_or("not measured".to_owned(), |value| format!("{value:.4}"));
        let (sign, bound) = match self.bound {
            Bound::AtMost(most) => ("<=", most),
            Bound::AtLeast(least) => (">=", least),
        };
        let verdict = if self.is_kept() { "kept" } else { "MISSED" };
        write!(f, "{:<28} {value:>14} {sign} {bound:<8} {verdict}", self.name)
    }
}

/// The promises of the document, in its order.
pub fn parse(document: &str) -> Result<Vec<Promise>> {
    let lines = document.lines().skip_while(|line| *line != HEADING).skip(1);
    let section = lines.take_while(|line| !line.starts_with("## "));
    // The first table of the section; its first two lines are its head.
    let table = section.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows = table.skip(2);
    let promises: Vec<Promise> = rows
        .map(|row| promise(row).with_context(|| format!("docs/promises.md: {row}")))
        .collect::<Result<_>>()?;
    ensure!(!promises.is_empty(), "docs/promises.md has no table under `{HEADING}`");
    let by_floor = |promise: &Promise| promise.by.as_ref().is_some_and(|by| by.contestant == FLOOR);
    ensure!(
        !promises.iter().any(by_floor) || promises.iter().any(|promise| promise.name == FLOOR_IS_ONE),
        "docs/promises.md compares with the floor, but has no `{FLOOR_IS_ONE}`"
    );
    Ok(promises)
}

fn promise(row: &str) -> Result<Promise> {
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    let [name, figure, of, by, bound] = cells[..] else {
        bail!("a promise has five cells: name, figure, of, divided by, bound");
    };
    let known = Figure::ALL.map(|(name, _)| name).join(", ");
    Ok(Promise {
        name: name.trim_matches('`').to_owned(),
        figure: Figure::parse(figure).with_context(|| format!("the figure is one of: {known}"))?,
        of: place(of)?,
        by: (by != NONE).then(|| place(by)).transpose()?,
        bound: parse_bound(bound)?,
    })
}

fn place(cell: &str) -> Result<Place> {
    let (contestant, load) =
        cell.split_once(' ').context("a place is a contestant and a load: defib http-5k")?;
    ensure!(loads::ALL.iter().any(|known| known.name == load), "there is no load {load:?}");
    Ok(Place { contestant: contestant.to_owned(), load: load.to_owned() })
}

fn parse_bound(cell: &str) -> Result<Bound> {
    let (sign, number) = cell.split_once(' ').context("a bound is a sign and a number: ≤ 0.40")?;
    let number: f64 = number.parse().with_context(|| format!("{number:?} is not a number"))?;
    match sign {
        "≤" => Ok(Bound::AtMost(number)),
        "≥" => Ok(Bound::AtLeast(number)),
        _ => bail!("the sign is ≤ or ≥, not {sign:?}"),
    }
}

/// What the rows say of each promise. What is divided by the floor is measured only where the floor is one: where
/// the promise [`FLOOR_IS_ONE`] is kept.
pub fn judge(promises: &[Promise], rows: &[Row]) -> Vec<Verdict> {
    let verdict = |promise: &Promise| {
        let value = |place: &Place| promise.figure.value(&rows::of(rows, &place.contestant, &place.load));
        let value = match &promise.by {
            None => value(&promise.of),
            Some(by) => value(&promise.of).zip(value(by)).map(|(of, by)| of / by),
        };
        Verdict { name: promise.name.clone(), value, bound: promise.bound }
    };
    let has_floor = promises
        .iter()
        .filter(|promise| promise.name == FLOOR_IS_ONE)
        .all(|promise| verdict(promise).is_kept());
    promises
        .iter()
        .map(|promise| {
            let by_floor = promise.by.as_ref().is_some_and(|by| by.contestant == FLOOR);
            let found = verdict(promise);
            if by_floor && !has_floor { Verdict { value: None, ..found } } else { found }
        })
        .collect()
}

/// That the rows are those of one whole run: its loads in full length, in rounds enough for a median.
pub fn is_whole(rows: &[Row]) -> Result<()> {
    let run = rows.first().context("there is no row")?.run;
    ensure!(rows.iter().all(|row| row.run == run), "the rows are of more than one run");
    for load in &loads::ALL {
        let of_load = || rows.iter().filter(|row| row.load == load.name);
        let name = load.name;
        let contestants: BTreeSet<&str> = of_load().map(|row| row.contestant.as_str()).collect();
        for contestant in contestants {
            let of = of_load().filter(|row| row.contestant == contestant);
            let rounds = of.map(|row| row.round).collect::<BTreeSet<u32>>().len() as u32;
            ensure!(rounds >= ROUNDS_MIN, "{contestant} {name}: {rounds} rounds, not {ROUNDS_MIN}");
        }
        let window_s = of_load().map(|row| row.window_s).reduce(f64::min).unwrap_or_default();
        let whole_s = load.window.as_secs_f64();
        ensure!(window_s >= whole_s, "{name}: a window of {window_s:.0} s, not of {whole_s:.0} s");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# Promises\n\n## Other\n\n| a | b |\n|---|---|\n| x | y |\n\n## Beside other probers\n\nText.\n\n\
                         | name | figure | of | divided by | bound |\n|---|---|---|---|---|\n\
                         | `cheap` | CPU per probe | defib http-5k | haproxy http-5k | ≤ 0.80 |\n\
                         | `true` | false failures | defib http-5k | – | ≤ 0 |\n\
                         | `rate` | achieved rate | defib http-5k | – | ≥ 0.999 |\n\
                         | `late` | lateness p99.9 by period | defib http-5k | – | ≤ 0.005 |\n\nText.\n\n| no | t |\n|---|---|\n| x | y |\n\n## After\n";

    fn kept(rows: &[Row]) -> Vec<bool> {
        judge(&parse(TABLE).unwrap(), rows).iter().map(Verdict::is_kept).collect()
    }

    #[test]
    fn a_run_is_compared_with_the_table() {
        let mut rows = vec![rows::row("defib", "http-5k", 40.0), rows::row("haproxy", "http-5k", 50.0)];
        rows[0].lateness_p999_us = Some(4_000.0);
        assert_eq!(kept(&rows), [true, true, true, true]);
        rows[0].cpu_us_per_probe = 41.0;
        rows[0].lateness_p999_us = Some(6_000.0);
        rows[0].rate_per_s = 4_900.0;
        assert_eq!(kept(&rows), [false, true, false, false]);
        rows[0].false_failures = 1;
        assert_eq!(kept(&rows), [false, false, false, false]);
    }

    #[test]
    fn nothing_is_compared_with_a_floor_that_is_none() {
        let table = TABLE.replace("| `true`", "| `floor-is-one` | CPU per probe | floor http-5k | haproxy http-5k | \
                                   ≤ 0.72 |\n| `low` | CPU per probe | defib http-5k | floor http-5k | ≤ 1.15 |\n| `true`");
        let check = |floor: f64, expected: [bool; 2]| {
            let rows = [("defib", 30.0), ("floor", floor), ("haproxy", 50.0)];
            let rows = rows.map(|(contestant, cpu)| rows::row(contestant, "http-5k", cpu));
            let verdicts = judge(&parse(&table).unwrap(), &rows);
            assert_eq!([1, 2].map(|at: usize| verdicts[at].is_kept()), expected);
        };
        check(30.0, [true, true]);
        check(40.0, [false, false]);
        check(20.0, [true, false]);
    }

    #[test]
    fn only_a_whole_run_is_judged() {
        let rows: Vec<Row> = loads::ALL
            .iter()
            .flat_map(|load| (1..=3).map(|round| (load.name, load.window.as_secs_f64(), round)))
            .map(|(load, window_s, round)| Row { round, window_s, ..rows::row("defib", load, 30.0) })
            .collect();
        is_whole(&rows).unwrap();
        let refused = |change: fn(&mut Vec<Row>)| {
            let mut rows = rows.clone();
            change(&mut rows);
            is_whole(&rows).unwrap_err().to_string()
        };
        assert!(refused(|rows| rows.clear()).contains("no row"));
        assert!(refused(|rows| rows[1].run = 2).contains("more than one run"));
        assert!(refused(|rows| drop(rows.remove(2))).contains("http-5k: 2 rounds"));
        assert!(refused(|rows| rows[0].window_s = 5.0).contains("a window of 5 s"));
        assert!(refused(|rows| rows.truncate(3)).contains("a window of 0 s"));
    }

    #[test]
    fn what_was_not_measured_is_not_kept() {
        assert_eq!(kept(&[]), [false, false, false, false]);
        let alone = [rows::row("defib", "http-5k", 1.0)];
        assert_eq!(kept(&alone), [false, true, true, false]);
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        let check = |line: &str, part: &str| {
            let text = format!("{HEADING}\n| n | f | o | b | b |\n|---|---|---|---|---|\n{line}\n");
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(part), "{error}");
        };
        check("| a | CPU | defib http-5k | – | ≤ 1 |", "the figure is one of");
        check("| a | cores | defib http-6k | – | ≤ 1 |", "no load");
        check("| a | cores | defib http-5k | – | < 1 |", "the sign");
        check("| a | cores | defib http-5k | ≤ 1 |", "five cells");
        check("| a | cores | defib http-5k | floor http-5k | ≤ 1 |", "floor-is-one");
    }

    #[test]
    fn the_promises_of_the_project_are_readable() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/promises.md");
        let promises = parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(promises.iter().any(|promise| promise.name == "cpu-5k-floor"), "{promises:?}");
    }
}
