/// The arithmetic mean; of nothing, nothing.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard error of the mean; one value says nothing about it.
pub(crate) fn standard_error(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let count = values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt())
}

/// Spearman's rank correlation of two equally long lists, from -1 to 1; equal values share the mean of their ranks. Without two
/// different values on either side there is no order to compare.
pub fn spearman(xs: &[f64], ys: &[f64]) -> Option<f64> {
    if xs.len() != ys.len() {
        return None;
    }
    let (xs, ys) = (ranks(xs), ranks(ys));
    let (mean_x, mean_y) = (mean(&xs)?, mean(&ys)?);
    let products = |a: &[f64], mean_a: f64, b: &[f64], mean_b: f64| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum()
    };
    let spread = (products(&xs, mean_x, &xs, mean_x) * products(&ys, mean_y, &ys, mean_y)).sqrt();
    (spread > 0.0).then(|| products(&xs, mean_x, &ys, mean_y) / spread)
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equals in order.chunk_by(|&a, &b| values[a].total_cmp(&values[b]).is_eq()) {
        let shared = first as f64 + (equals.len() - 1) as f64 / 2.0;
        for &index in equals {
            ranks[index] = shared;
        }
        first += equals.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_is_that_of_the_mean() {
        assert_eq!((mean(&[]), standard_error(&[]), standard_error(&[3.0])), (None, None, None));
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        // Variance 7, three values.
        assert!((standard_error(&[1.0, 2.0, 6.0]).unwrap() - (7.0_f64 / 3.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn ranks_are_correlated_and_not_values() {
        assert_eq!(spearman(&[1.0, 2.0, 30.0], &[0.1, 0.2, 0.21]), Some(1.0));
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[9.0, 5.0, -1.0]), Some(-1.0));
        // With a tie, as scipy.stats.spearmanr([1, 2, 2, 3], [1, 3, 2, 4]) has it.
        assert!((spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 3.0, 2.0, 4.0]).unwrap() - 0.948_683_298_050_513_8).abs() < 1e-12);
    }

    #[test]
    fn lists_without_an_order_have_no_correlation() {
        assert_eq!(spearman(&[], &[]), None);
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(spearman(&[1.0, 2.0], &[1.0]), None);
    }
}
