//! A percentile plot: the further right, the rarer. Both axes are logarithmic, so that the half of all runs and the
//! slowest one in ten thousand are equally legible. Colours follow the viewer's light or dark scheme.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::report::time;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
/// Of the plot inside the picture.
const LEFT: f64 = 76.0;
const RIGHT: f64 = 830.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 400.0;
/// Points of one curve from one half of what is left to the next.
const TICKS_PER_HALF_DISTANCE: u32 = 10;
/// The least that is shown: nothing below it is of interest, and it would take the room of what is.
const VALUE_MIN_NS: f64 = 1_000.0;
/// Powers of ten on the x axis at least and at most: 99 % and 99.9999 %.
const NINES_MIN: u32 = 2;
const NINES_MAX: u32 = 6;

const STYLE: &str = "\
    .paper{fill:#ffffff}text{fill:#1f2328;font:13px system-ui,sans-serif}.title{font-size:16px;font-weight:600}\
    .soft{fill:#59636e}.grid{stroke:#d1d9e0;stroke-width:1}.axis{stroke:#59636e;stroke-width:1}\
    .c0{stroke:#0969da}.c1{stroke:#bc4c00}.curve{fill:none;stroke-width:2.2;stroke-linejoin:round}\
    .c1.curve{stroke-dasharray:7 4}\
    @media (prefers-color-scheme:dark){.paper{fill:#0d1117}text{fill:#e6edf3}.soft{fill:#9198a1}\
    .grid{stroke:#30363d}.axis{stroke:#9198a1}.c0{stroke:#58a6ff}.c1{stroke:#f0883e}}";

/// The picture. Each curve has a name and a histogram of nanoseconds; two are told apart by colour and by dashes.
pub fn plot(title: &str, curves: &[(&str, &Histogram<u64>)]) -> String {
    let scale = Scale::of(curves.iter().map(|(_, histogram)| *histogram));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\">\n<title>{0}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"28\">{0}</text>\n",
        escaped(title)
    );
    grid(&mut out, &scale);
    for (at, (name, histogram)) in curves.iter().enumerate() {
        let class = at % 2;
        let points = points(histogram, &scale);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "<polyline class=\"curve c{class}\" points=\"{}\"/>", points.join(" "));
        let x = LEFT + 220.0 * at as f64;
        let _ = writeln!(
            out,
            "<line class=\"curve c{class}\" x1=\"{x}\" y1=\"46\" x2=\"{}\" y2=\"46\"/>\
             <text x=\"{}\" y=\"50.5\">{}</text>",
            x + 34.0,
            x + 42.0,
            escaped(name)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Where values and percentiles stand.
#[derive(Copy, Clone, PartialEq, Debug)]
struct Scale {
    /// Powers of ten of nanoseconds, at the bottom and at the top.
    low: i32,
    high: i32,
    /// The right end is 99…9 %, with so many nines.
    nines: u32,
}

impl Scale {
    fn of<'a>(histograms: impl Iterator<Item = &'a Histogram<u64>> + Clone) -> Scale {
        let filled = histograms.filter(|histogram| !histogram.is_empty());
        let min = filled.clone().map(|histogram| histogram.min() as f64).fold(f64::INFINITY, f64::min);
        let max = filled.clone().map(|histogram| histogram.max() as f64).fold(0.0, f64::max);
        let count = filled.map(Histogram::len).max().unwrap_or(0);
        let min = if min.is_finite() { min } else { VALUE_MIN_NS };
        let low = min.max(VALUE_MIN_NS).log10().floor() as i32;
        let high = (max.max(VALUE_MIN_NS).log10().ceil() as i32).max(low + 1);
        // The slowest run of a thousand is at 99.9 %.
        let nines = (count.max(1) as f64).log10().ceil() as u32;
        Scale { low, high, nines: nines.clamp(NINES_MIN, NINES_MAX) }
    }

    /// 0 % is at the left, and each nine is as wide as the one before.
    fn x(&self, quantile: f64) -> f64 {
        let nines = -(1.0 - quantile).max(10_f64.powi(-(self.nines as i32))).log10();
        LEFT + (RIGHT - LEFT) * nines / f64::from(self.nines)
    }

    fn y(&self, value_ns: f64) -> f64 {
        let share =
            (value_ns.max(VALUE_MIN_NS).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        BOTTOM - (BOTTOM - TOP) * share.clamp(0.0, 1.0)
    }
}

fn grid(out: &mut String, scale: &Scale) {
    for power in scale.low..=scale.high {
        for factor in [1.0, 2.0, 5.0] {
            let value_ns = factor * 10_f64.powi(power);
            if value_ns > 10_f64.powi(scale.high) {
                break;
            }
            let y = scale.y(value_ns);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\"/>"
            );
            // Over many powers the labels between them would touch.
            if factor == 1.0 || scale.high - scale.low <= 4 {
                let label = time(value_ns as u64);
                let _ = writeln!(
                    out,
                    "<text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                    LEFT - 8.0,
                    y + 4.5
                );
            }
        }
    }
    for (quantile, label) in ticks(scale.nines) {
        let x = scale.x(quantile);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\"/>\
             <text class=\"soft\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            BOTTOM + 20.0
        );
    }
    let _ = writeln!(
        out,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{BOTTOM}\" x2=\"{RIGHT}\" y2=\"{BOTTOM}\"/>\
         <line class=\"axis\" x1=\"{LEFT}\" y1=\"{TOP}\" x2=\"{LEFT}\" y2=\"{BOTTOM}\"/>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">runs that took no longer</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 44.0
    );
}

/// 0 %, 50 %, 90 %, 99 %, …
fn ticks(nines: u32) -> Vec<(f64, String)> {
    let mut ticks = vec![(0.0, "0%".to_owned()), (0.5, "50%".to_owned())];
    for count in 1..=nines {
        let label = match count {
            1 => "90%".to_owned(),
            2 => "99%".to_owned(),
            count => format!("99.{}%", "9".repeat(count as usize - 2)),
        };
        ticks.push((1.0 - 10_f64.powi(-(count as i32)), label));
    }
    ticks
}

/// `x,y` of a curve.
fn points(histogram: &Histogram<u64>, scale: &Scale) -> Vec<String> {
    histogram
        .iter_quantiles(TICKS_PER_HALF_DISTANCE)
        .map(|point| (scale.x(point.quantile_iterated_to()), scale.y(point.value_iterated_to() as f64)))
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect()
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_max(3_600_000_000_000, 3).unwrap();
        values.into_iter().for_each(|value| histogram.record(value).unwrap());
        histogram
    }

    /// Every element is closed, in order, and quotes are paired.
    fn check_well_formed(svg: &str) {
        let mut open: Vec<&str> = Vec::new();
        for part in svg.split('<').skip(1) {
            let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("no end of {part:?}"));
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            assert!(!text.contains('&') || text.contains("&amp;") || text.contains("&lt;"), "{text}");
            let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn pictures_are_well_formed() {
        let some = histogram((1..=5_000).map(|n| n * 3_000));
        let slow = histogram([3_600_000_000_000]);
        let none = histogram([]);
        let zero = histogram([0, 0]);
        for curves in [[&some, &slow], [&some, &none], [&none, &none], [&zero, &none], [&zero, &some]] {
            let svg = plot("GET <a&b>", &[("response", curves[0]), ("late<ness", curves[1])]);
            check_well_formed(&svg);
            assert_eq!(svg.matches("<polyline").count(), 2);
            assert!(svg.contains("GET &lt;a&amp;b&gt;"));
        }
    }

    #[test]
    fn axes_hold_everything() {
        let histograms = [histogram([40_000, 9_000_000]), histogram((0..2_000).map(|n| n + 1_000))];
        let scale = Scale::of(histograms.iter());
        assert_eq!(scale, Scale { low: 3, high: 7, nines: 4 });
        let places = [scale.x(0.0), scale.x(0.99), scale.x(1.0), scale.y(1e3), scale.y(1e5), scale.y(1e7)];
        let expected = [LEFT, (LEFT + RIGHT) / 2.0, RIGHT, BOTTOM, (TOP + BOTTOM) / 2.0, TOP];
        assert!(places.iter().zip(expected).all(|(place, at)| (place - at).abs() < 0.01), "{places:?}");
        let labels: Vec<String> = ticks(4).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0%", "50%", "90%", "99%", "99.9%", "99.99%"]);
    }
}
