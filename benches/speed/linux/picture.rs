//! Line charts as SVG, small enough to be read as text.

use std::fmt::Write as _;

/// One line of a chart.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

pub struct Chart {
    pub title: String,
    pub x: &'static str,
    pub y: &'static str,
    pub series: Vec<Series>,
    /// Whether the vertical axis is logarithmic, too. The horizontal one always is.
    pub logarithmic: bool,
    /// A bound that is drawn as a dashed line.
    pub bound: Option<(f64, &'static str)>,
}

const WIDTH: f64 = 840.0;

const HEIGHT: f64 = 420.0;

/// Around the field: left, right (for the names of the lines), top, bottom.
const MARGINS: (f64, f64, f64, f64) = (64.0, 290.0, 52.0, 52.0);

/// Apart for people who do not see all colours.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#b3a000"];

impl Chart {
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let range = |values: Vec<f64>| {
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            (low, high)
        };
        let (x_low, x_high) = range(points().map(|point| point.0.max(1.0)).collect());
        let bound = self.bound.map(|bound| bound.0);
        let (y_low, y_high) = range(points().map(|point| point.1).chain(bound).collect());
        let (y_low, y_high) = if self.logarithmic {
            (10_f64.powf(y_low.log10().floor()), 10_f64.powf(y_high.log10().ceil()))
        } else {
            let step = step(y_high);
            (0.0, (y_high / step).ceil() * step)
        };
        let (left, right, top, bottom) = MARGINS;
        let part = |value: f64, low: f64, high: f64, logarithmic: bool| {
            if logarithmic {
                (value.max(low).log10() - low.log10()) / (high.log10() - low.log10()).max(1e-9)
            } else {
                (value - low) / (high - low)
            }
        };
        let x_at = |x: f64| left + part(x.max(1.0), x_low, x_high, true) * (WIDTH - left - right);
        let y_at = |y: f64| {
            HEIGHT - bottom - part(y, y_low, y_high, self.logarithmic) * (HEIGHT - top - bottom)
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
             <text x=\"{left}\" y=\"22\" font-size=\"15\">{}</text>\n",
            self.title
        );
        let mut text = |x: f64, y: f64, anchor: &str, colour: &str, words: &str| {
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" \
                 fill=\"{colour}\">{words}</text>"
            );
        };
        text(8.0, top, "start", "#555555", self.y);
        text((left + WIDTH - right) / 2.0, HEIGHT - 12.0, "middle", "#555555", self.x);
        let mut lines = String::new();
        let mut line = |points: &[(f64, f64)], colour: &str, more: &str| {
            let places: Vec<String> =
                points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                lines,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" {more}/>",
                places.join(" ")
            );
        };
        for tick in self.y_ticks(y_low, y_high) {
            let y = y_at(tick);
            line(&[(left, y), (WIDTH - right, y)], "#dddddd", "");
            text(left - 6.0, y + 4.0, "end", "#555555", &number(tick));
        }
        let mut ticks: Vec<f64> = points().map(|point| point.0).collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        for tick in ticks {
            text(x_at(tick), HEIGHT - bottom + 18.0, "middle", "#555555", &number(tick));
        }
        if let Some((bound, name)) = self.bound {
            let y = y_at(bound);
            line(&[(left, y), (WIDTH - right, y)], "#cc0000", "stroke-dasharray=\"6 4\"");
            text(WIDTH - right + 8.0, y + 4.0, "start", "#cc0000", name);
        }
        for (at, series) in self.series.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let places: Vec<(f64, f64)> =
                series.points.iter().map(|(x, y)| (x_at(*x), y_at(*y))).collect();
            line(&places, colour, "stroke-width=\"2\"");
            #[allow(clippy::cast_precision_loss, reason = "a few")]
            let y = top + 14.0 + 18.0 * at as f64;
            text(WIDTH - right + 8.0, y, "start", colour, &series.name);
        }
        svg + &lines + "</svg>\n"
    }

    fn y_ticks(&self, low: f64, high: f64) -> Vec<f64> {
        if self.logarithmic {
            let mut ticks = vec![low];
            while ticks.last().is_some_and(|last| last * 1.01 < high) {
                ticks.push(ticks[ticks.len() - 1] * 10.0);
            }
            return ticks;
        }
        let step = step(high);
        (0..=7).map(|at| f64::from(at) * step).take_while(|tick| *tick < high * 1.01).collect()
    }
}

/// Between two ticks: at most six of them, at round numbers.
fn step(high: f64) -> f64 {
    let rough = high.max(1e-9) / 6.0;
    let decade = 10_f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * decade);
    round.into_iter().find(|step| *step >= rough).unwrap_or(rough)
}

fn number(value: f64) -> String {
    if value >= 10.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}
