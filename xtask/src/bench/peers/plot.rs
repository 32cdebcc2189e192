//! The plot: CPU per probe and false failures over the offered rate, as SVG.

use std::fmt::Write as _;

use super::loads::{self, Kind, Load};
use super::rows::{self, Row};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 380.0;
/// Of the whole picture around one chart: left for the scale, below for rates and legend.
const LEFT: f64 = 56.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 84.0;
const CHART_WIDTH: f64 = 340.0;
const CHART_GAP: f64 = 76.0;
const GRID_LINES: u32 = 4;
/// One a contestant, told apart also by those who see few colours.
const COLOURS: [&str; 7] = ["#d1242f", "#57606a", "#0969da", "#1a7f37", "#8250df", "#bf8700", "#0e7490"];

/// What one chart shows, and its points by contestant: rate, value.
struct Chart {
    title: &'static str,
    series: Vec<(usize, Vec<(f64, f64)>)>,
}

pub fn svg(contestants: &[&'static str], rows: &[Row]) -> String {
    let charts = [
        Chart {
            title: "CPU per probe, µs (where nothing failed falsely)",
            series: series(contestants, rows, rows::cpu_us_per_probe),
        },
        Chart {
            title: "false failures, % of probes",
            series: series(contestants, rows, |of| rows::median(of, |row| Some(100.0 * row.false_share()))),
        },
    ];
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut left = LEFT;
    for chart in &charts {
        draw(&mut text, chart, left);
        left += CHART_WIDTH + CHART_GAP;
    }
    for (at, name) in contestants.iter().enumerate() {
        let (x, y) = (LEFT + 112.0 * at as f64, HEIGHT - 18.0);
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"4\" fill=\"{}\"/><text x=\"{}\" y=\"{y}\">{name}</text>",
            y - 6.0,
            colour(at),
            x + 18.0,
        );
    }
    text.push_str("</svg>\n");
    text
}

fn colour(at: usize) -> &'static str {
    COLOURS[at % COLOURS.len()]
}

/// HTTP loads, by rate; that of few targets at a high pace has the rate of another one.
fn plotted() -> Vec<Load> {
    let is_plotted = |load: &Load| load.kind == Kind::Http && load.name != loads::HTTP_1K;
    let mut plotted: Vec<Load> = loads::ALL.into_iter().filter(is_plotted).collect();
    plotted.sort_by(|one, other| one.rate_per_s().total_cmp(&other.rate_per_s()));
    plotted
}

fn series(
    contestants: &[&'static str],
    rows: &[Row],
    value: impl Fn(&[&Row]) -> Option<f64>,
) -> Vec<(usize, Vec<(f64, f64)>)> {
    let points = |contestant: &str| -> Vec<(f64, f64)> {
        let at = |load: Load| {
            value(&rows::of(rows, contestant, load.name)).map(|value| (load.rate_per_s(), value))
        };
        plotted().into_iter().filter_map(at).collect()
    };
    contestants.iter().map(|contestant| points(contestant)).enumerate().collect()
}

fn draw(text: &mut String, chart: &Chart, left: f64) {
    let all = || chart.series.iter().flat_map(|(_, points)| points);
    let value_max = ceiling(all().map(|(_, value)| *value).fold(0.0, f64::max));
    let rate_max = plotted().iter().map(Load::rate_per_s).fold(1.0, f64::max);
    let bottom = HEIGHT - BOTTOM;
    let x = |rate: f64| left + rate / rate_max * CHART_WIDTH;
    let y = |value: f64| bottom - value / value_max * (bottom - TOP);
    let _ =
        writeln!(text, "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{}</text>", TOP - 14.0, chart.title);
    for line in 0..=GRID_LINES {
        let value = value_max * f64::from(line) / f64::from(GRID_LINES);
        let (at, right) = (y(value), left + CHART_WIDTH);
        let _ = writeln!(
            text,
            "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#d0d7de\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            left - 6.0,
            at + 4.0,
        );
    }
    for load in plotted() {
        let rate = load.rate_per_s();
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{rate}/s</text>",
            x(rate),
            bottom + 18.0
        );
    }
    for (at, points) in &chart.series {
        let line: Vec<String> =
            points.iter().map(|(rate, value)| format!("{:.1},{:.1}", x(*rate), y(*value))).collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
            line.join(" "),
            colour(*at)
        );
        for (rate, value) in points {
            let _ = writeln!(
                text,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{}\"/>",
                x(*rate),
                y(*value),
                colour(*at)
            );
        }
    }
}

/// The next of 1, 2, 4, 8 times a power of ten: quarters of it are short numbers.
fn ceiling(value: f64) -> f64 {
    let mut step = 0.1;
    while step * 8.0 < value {
        step *= 10.0;
    }
    [1.0, 2.0, 4.0, 8.0].map(|factor| factor * step).into_iter().find(|top| *top >= value).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_ends_at_a_short_number() {
        let tops = [0.0, 0.3, 1.0, 3.0, 45.0, 140.0].map(ceiling);
        for (top, expected) in tops.into_iter().zip([0.1, 0.4, 1.0, 4.0, 80.0, 200.0]) {
            assert!((top - expected).abs() < 1e-9, "{top} {expected}");
        }
    }

    #[test]
    fn each_contestant_is_a_line_with_its_points() {
        let mut all = vec![rows::row("defib", "http-5k", 30.0), rows::row("defib", "http-20k", 20.0)];
        all.push(rows::row("kubelet", "http-5k", 100.0));
        all[2].false_failures = 100;
        let text = svg(&["defib", "kubelet"], &all);
        assert_eq!(text.matches("<polyline").count(), 4);
        // Two points of defib in each chart, and one of kubelet where failures are shown.
        assert_eq!(text.matches("<circle").count(), 5);
        assert!(text.contains(">kubelet</text>") && text.ends_with("</svg>\n"));
    }
}
