use tch::{TchError, Tensor, no_grad};

/// Decay rates of the first and second moment, and what is added to the denominator: PyTorch's defaults, for the paper names Adam
/// without its constants.
const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Adam (Kingma and Ba, 2015) on one vector of parameters, without weight decay; as `torch.optim.Adam`.
pub struct Adam {
    learning_rate: f64,
    /// Running mean of the gradient. [P]
    first_moment: Tensor,
    /// Running mean of the squared gradient. [P]
    second_moment: Tensor,
    step: i32,
}

impl Adam {
    pub fn new(parameters: &Tensor, learning_rate: f64) -> Result<Self, TchError> {
        Ok(Self { learning_rate, first_moment: parameters.f_zeros_like()?, second_moment: parameters.f_zeros_like()?, step: 0 })
    }

    /// Moves the parameters one step against the gradient.
    pub fn step(&mut self, parameters: &mut Tensor, gradient: &Tensor) -> Result<(), TchError> {
        no_grad(|| {
            self.step += 1;
            let _ = self.first_moment.f_lerp_(gradient, 1.0 - BETA1)?;
            let square = gradient.f_square()?.f_mul_scalar_(1.0 - BETA2)?;
            let _ = self.second_moment.f_mul_scalar_(BETA2)?.f_add_(&square)?;

            let first_correction = 1.0 - BETA1.powi(self.step);
            let second_correction = 1.0 - BETA2.powi(self.step);
            let mut direction = self.second_moment.f_sqrt()?.f_div_scalar_(second_correction.sqrt())?.f_add_scalar_(EPSILON)?;
            let _ =
                direction.f_reciprocal_()?.f_mul_(&self.first_moment)?.f_mul_scalar_(self.learning_rate / first_correction)?;
            let _ = parameters.f_sub_(&direction)?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The textbook formulas in f64, one number at a time.
    fn textbook(gradients: &[f64], learning_rate: f64) -> f64 {
        let (mut parameter, mut m, mut v) = (1.0, 0.0, 0.0);
        for (step, gradient) in (1..).zip(gradients) {
            m = 0.9 * m + 0.1 * gradient;
            v = 0.999 * v + 0.001 * gradient * gradient;
            let m_hat = m / (1.0 - 0.9_f64.powi(step));
            let v_hat = v / (1.0 - 0.999_f64.powi(step));
            parameter -= learning_rate * m_hat / (v_hat.sqrt() + 1e-8);
        }
        parameter
    }

    #[test]
    fn follows_the_textbook() {
        let histories = [[3.0, -1.0, 0.5, 1e-4], [-1e-7, -2e-7, 0.0, 1e-9], [1e3, 1e3, 1e3, -1e4]];
        let mut parameters = Tensor::from_slice(&[1.0_f32; 3]);
        let mut adam = Adam::new(&parameters, 0.01).unwrap();
        for step in 0..4 {
            let gradient = histories.map(|history| history[step] as f32);
            adam.step(&mut parameters, &Tensor::from_slice(&gradient)).unwrap();
        }
        for (i, history) in histories.iter().enumerate() {
            let expected = textbook(history, 0.01);
            let moved = parameters.double_value(&[i as i64]);
            assert!((expected - 1.0).abs() > 1e-3, "the history moves the parameter");
            assert!((moved - expected).abs() < 2e-7, "{moved} instead of {expected}");
        }
    }
}
