use super::lab::{Lab, Mean, squared_distance};

/// Clusters whose means are nearer than this differ by rounding; two colours of eight bits are further apart.
const SAME_COLOUR: f32 = 1e-3;

/// The iterations end by themselves, for each lowers the sum of squares, but for rounding.
const MAX_ITERATIONS: usize = 1_000;

/// K-means with k = 2: whether each colour, of which there must be one, is in the second cluster. Colours that are all the same are
/// in the first.
///
/// It starts from the best cut across one of the three axes, so from no random draw.
pub fn split(colours: &[Lab]) -> Vec<bool> {
    let mut in_second = best_cut(colours);
    for _ in 0..MAX_ITERATIONS {
        let means = means(colours, &in_second);
        if means.iter().any(|mean| mean.count == 0) {
            break;
        }
        let [first, second] = means.map(|mean| mean.colour());
        if squared_distance(&first, &second) < SAME_COLOUR.powi(2) {
            return vec![false; colours.len()];
        }
        let nearer = |colour: &Lab| squared_distance(colour, &second) < squared_distance(colour, &first);
        let next: Vec<bool> = colours.iter().map(nearer).collect();
        if next == in_second {
            break;
        }
        in_second = next;
    }
    in_second
}

fn means(colours: &[Lab], in_second: &[bool]) -> [Mean; 2] {
    let mut means = [Mean::default(); 2];
    for (colour, &second) in colours.iter().zip(in_second) {
        means[usize::from(second)].add(colour);
    }
    means
}

/// Of all cuts of the colours into those below and those above a value of one channel, the one with the least sum of squared
/// distances to the two means. That sum is least where n1 n2 |m1 - m2|^2 is greatest.
fn best_cut(colours: &[Lab]) -> Vec<bool> {
    let mut best = (0.0, vec![false; colours.len()]);
    for channel in 0..3 {
        let mut order: Vec<usize> = (0..colours.len()).collect();
        order.sort_by(|&i, &j| colours[i][channel].total_cmp(&colours[j][channel]));

        // What lies above a cut after each of the colours, in their order.
        let mut above = vec![Mean::default(); colours.len()];
        for k in (1..order.len()).rev() {
            above[k - 1] = above[k];
            above[k - 1].add(&colours[order[k]]);
        }
        let mut below = Mean::default();
        for (k, pair) in order.windows(2).enumerate() {
            below.add(&colours[pair[0]]);
            let apart = squared_distance(&below.colour(), &above[k].colour());
            let gain = f64::from(below.count) * f64::from(above[k].count) * f64::from(apart);
            if gain > best.0 {
                let mut in_second = vec![false; colours.len()];
                order[k + 1..].iter().for_each(|&i| in_second[i] = true);
                best = (gain, in_second);
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greys(lightness: &[f32]) -> Vec<Lab> {
        lightness.iter().map(|&l| [l, 0.0, 0.0]).collect()
    }

    #[test]
    fn finds_the_best_of_all_divisions_and_not_a_nearby_one() {
        // From 0 and 90 as first means, 60 would stay with 90 for good.
        let lightness = [[90.0, 60.0, 60.0].repeat(10), vec![0.0], [90.0, 60.0, 60.0].repeat(10)].concat();
        let brightest: Vec<bool> = lightness.iter().map(|&l| l > 75.0).collect();
        assert_eq!(split(&greys(&lightness)), brightest);
    }

    #[test]
    fn divides_along_no_single_channel() {
        let mut colours: Vec<Lab> = (0..10).map(|i| [i as f32 * 4.0, i as f32 * 4.0, 0.0]).collect();
        colours.extend((0..10).map(|i| [i as f32 * 4.0 + 13.0, i as f32 * 4.0 - 13.0, 0.0]));
        let found = split(&colours);
        let sum_of_squares = |in_second: &[bool]| {
            let means = means(&colours, in_second).map(|mean| mean.colour());
            colours
                .iter()
                .zip(in_second)
                .map(|(colour, &second)| squared_distance(colour, &means[usize::from(second)]))
                .sum::<f32>()
        };
        assert!(sum_of_squares(&found) <= sum_of_squares(&best_cut(&colours)));
        let means = means(&colours, &found).map(|mean| mean.colour());
        let stays = |(colour, &second): (&Lab, &bool)| {
            (squared_distance(colour, &means[1]) < squared_distance(colour, &means[0])) == second
        };
        assert!(colours.iter().zip(&found).all(stays), "every colour is with the mean nearer to it");
    }

    #[test]
    fn one_colour_is_one_cluster() {
        assert_eq!(split(&greys(&[50.0; 7])), [false; 7]);
        assert_eq!(split(&greys(&[50.0, 50.000_1])), [false; 2]);
        assert_eq!(split(&greys(&[50.0])), [false]);
    }
}
