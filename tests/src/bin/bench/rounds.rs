//! Several subjects, measured in turn, round after round.

/// Measures every subject once a round; `figures[subject][round]`.
pub fn interleaved(
    rounds: usize,
    subjects: usize,
    mut measure: impl FnMut(usize) -> f64,
) -> Vec<Vec<f64>> {
    let mut figures = vec![Vec::with_capacity(rounds); subjects];
    for _ in 0..rounds {
        for (subject, figures) in figures.iter_mut().enumerate() {
            figures.push(measure(subject));
        }
    }
    figures
}

/// One subject's figures over another's, round by round.
pub fn ratios(of: &[f64], over: &[f64]) -> Vec<f64> {
    of.iter().zip(over).map(|(of, over)| of / over).collect()
}

/// The median.
pub fn median(figures: &[f64]) -> f64 {
    percentile(figures, 50)
}

/// The figure that so many of a hundred are not above.
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// `0.93 (0.88 to 0.97)`: the median, the least and the most.
pub fn spread(figures: &[f64]) -> String {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2} to {most:.2})", median(figures))
}
