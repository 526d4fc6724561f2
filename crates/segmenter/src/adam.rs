use tch::{Device, Kind, TchError, Tensor, no_grad};

use crate::native::{self, AdamConstants};

/// Decay rates of the first and second moment, and what is added to the denominator: PyTorch's defaults, for the paper names Adam
/// without its constants.
const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Adam (Kingma and Ba, 2015) without weight decay; as `torch.optim.Adam(fused=True)`.
pub struct Adam {
    constants: AdamConstants,
    /// Running means of the gradients.
    first_moments: Vec<Tensor>,
    /// Running means of the squared gradients.
    second_moments: Vec<Tensor>,
    /// How many steps were made; on the parameters' device. [1]
    step: Tensor,
}

impl Adam {
    pub fn new(parameters: &[Tensor], learning_rate: f64) -> Result<Self, TchError> {
        let zeros = || parameters.iter().map(|parameter| no_grad(|| parameter.f_zeros_like())).collect::<Result<_, _>>();
        let device = parameters.first().map_or(Device::Cpu, Tensor::device);
        Ok(Self {
            constants: AdamConstants { learning_rate, beta1: BETA1, beta2: BETA2, epsilon: EPSILON },
            first_moments: zeros()?,
            second_moments: zeros()?,
            step: Tensor::f_zeros([1], (Kind::Float, device))?,
        })
    }

    /// Moves the parameters one step against the gradients.
    pub fn step(&mut self, parameters: &mut [Tensor], gradients: &[Tensor]) -> Result<(), TchError> {
        let _ = self.step.f_add_scalar_(1.0)?;
        native::adam(parameters, gradients, &mut self.first_moments, &mut self.second_moments, &self.step, &self.constants)
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
    fn a_long_gradient_in_any_order_of_memory_moves_its_own_parameters() {
        tch::manual_seed(1);
        let transposed = Tensor::randn([1_003, 7], (Kind::Float, Device::Cpu)).transpose(0, 1);
        let parameters = || [Tensor::zeros([7, 1_003], (Kind::Float, Device::Cpu))];
        let moved = |gradient: &Tensor| {
            let mut parameters = parameters();
            Adam::new(&parameters, 0.01).unwrap().step(&mut parameters, &[gradient.shallow_clone()]).unwrap();
            parameters
        };
        let [found] = moved(&transposed);
        assert!(found.equal(&moved(&transposed.contiguous())[0]));
        assert!((found + transposed.sign() * 0.01).abs().max().double_value(&[]) < 1e-5, "the first step is as long as the rate");
    }

    #[test]
    fn follows_the_textbook() {
        let histories = [[3.0, -1.0, 0.5, 1e-4], [-1e-7, -2e-7, 0.0, 1e-9], [1e3, 1e3, 1e3, -1e4]];
        // A parameter of two numbers and one of one.
        let mut parameters = [Tensor::from_slice(&[1.0_f32; 2]), Tensor::from_slice(&[1.0_f32])];
        let mut adam = Adam::new(&parameters, 0.01).unwrap();
        for step in 0..4 {
            let gradient = histories.map(|history| history[step] as f32);
            adam.step(&mut parameters, &[Tensor::from_slice(&gradient[..2]), Tensor::from_slice(&gradient[2..])]).unwrap();
        }
        for (i, history) in histories.iter().enumerate() {
            let expected = textbook(history, 0.01);
            let moved = parameters[i / 2].double_value(&[i as i64 % 2]);
            assert!((expected - 1.0).abs() > 1e-3, "the history moves the parameter");
            assert!((moved - expected).abs() < 2e-7, "{moved} instead of {expected}");
        }
    }
}
