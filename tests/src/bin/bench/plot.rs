//! Bars beside each other as an SVG, readable on light and dark.

use std::fmt::Write;

/// A picture that is kept beside the document.
pub struct Plot {
    /// Its file's name.
    pub file: &'static str,
    /// What it shows, for those who do not see it.
    pub about: &'static str,
    pub panels: Vec<Panel>,
}

/// One load.
pub struct Panel {
    pub title: String,
    /// A name, and messages per second and processor time relative to the first bar's; `None` where it was not measured.
    pub bars: Vec<(&'static str, Option<(f64, f64)>)>,
}

/// In units of the picture.
const WIDTH: f64 = 960.0;
const NAMES: f64 = 150.0;
/// The room for a bar's figure behind it.
const FIGURE: f64 = 50.0;
const GAP: f64 = 20.0;
const BAR: f64 = 14.0;
const LINE: f64 = 20.0;
const HEAD: f64 = 66.0;
const TITLE: f64 = 40.0;

const STYLE: &str = "
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.page { fill: #ffffff; } .title { font-weight: 600; } .quiet { fill: #59636e; }
.own { fill: #0969da; } .peer { fill: #9aa4af; } .rule { stroke: #d1d9e0; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .page { fill: #0d1117; } .quiet { fill: #9198a1; }
  .own { fill: #4493f8; } .peer { fill: #656c76; } .rule { stroke: #3d444d; }
}
";

impl Plot {
    /// The picture's text.
    pub fn svg(&self) -> String {
        let lines: usize = self.panels.iter().map(|panel| panel.bars.len()).sum();
        let height = HEAD + self.panels.len() as f64 * TITLE + lines as f64 * LINE + GAP;
        let column = (WIDTH - NAMES - 3.0 * GAP) / 2.0;
        let (rates, times) = (NAMES + GAP, NAMES + 2.0 * GAP + column);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{about}\">\n\
             <title>{about}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
            about = self.about
        );
        text(&mut svg, rates, 26.0, "title", "Messages per second");
        text(
            &mut svg,
            rates,
            44.0,
            "quiet",
            "of Gatepost's: longer is better",
        );
        text(&mut svg, times, 26.0, "title", "Processor time per message");
        text(
            &mut svg,
            times,
            44.0,
            "quiet",
            "of Gatepost's: shorter is better",
        );
        let mut top = HEAD;
        for panel in &self.panels {
            text(&mut svg, GAP, top + 24.0, "title", &panel.title);
            // Writing to a string cannot fail.
            let _ = writeln!(
                svg,
                "<path class=\"rule\" d=\"M{GAP} {} H{}\"/>",
                top + 4.0,
                WIDTH - GAP
            );
            top += TITLE;
            let most = |which: fn(&(f64, f64)) -> f64| {
                let figures = panel
                    .bars
                    .iter()
                    .filter_map(|(_, figures)| figures.as_ref());
                figures.map(which).fold(1.0, f64::max)
            };
            let scales = [most(|figures| figures.0), most(|figures| figures.1)];
            for (index, (name, figures)) in panel.bars.iter().enumerate() {
                let class = if index == 0 { "own" } else { "peer" };
                text(&mut svg, GAP, top + BAR - 2.0, "", name);
                match figures {
                    Some((rate, time)) => {
                        for (left, figure, scale) in
                            [(rates, rate, scales[0]), (times, time, scales[1])]
                        {
                            let long = (column - FIGURE) * figure / scale;
                            bar(&mut svg, left, top, long, class, *figure);
                        }
                    }
                    None => text(&mut svg, rates, top + BAR - 2.0, "quiet", "not measured"),
                }
                top += LINE;
            }
        }
        svg + "</svg>\n"
    }
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.0}\" y=\"{y:.0}\" class=\"{class}\">{text}</text>"
    );
}

fn bar(svg: &mut String, x: f64, y: f64, long: f64, class: &str, figure: f64) {
    let long = long.max(1.0);
    let _ = writeln!(
        svg,
        "<rect class=\"{class}\" x=\"{x:.0}\" y=\"{y:.0}\" width=\"{long:.1}\" height=\"{BAR}\"/>"
    );
    let digits = if figure < 9.95 { 2 } else { 0 };
    text(
        svg,
        x + long + 6.0,
        y + BAR - 2.0,
        "quiet",
        &format!("{figure:.digits$}"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_its_column_and_a_missing_one_says_so() {
        let plot = Plot {
            file: "a.svg",
            about: "two & one",
            panels: vec![Panel {
                title: "a < b".to_owned(),
                bars: vec![
                    ("own", Some((1.0, 1.0))),
                    ("half", Some((0.5, 4.0))),
                    ("gone", None),
                ],
            }],
        };
        let svg = plot.svg();
        let column = (WIDTH - NAMES - 3.0 * GAP) / 2.0 - FIGURE;
        for width in [column, column / 2.0, column / 4.0] {
            assert!(svg.contains(&format!("width=\"{width:.1}\"")), "{svg}");
        }
        assert!(
            svg.contains("a &lt; b") && svg.contains("not measured"),
            "{svg}"
        );
    }
}
