//! A forward pass of the image encoder, and the gradients of what is made of it.

use tch::{TchError, Tensor, no_grad};

use super::{EncoderParameters, ImageEncoder, Result};

/// What of a forward pass is there for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// All that the gradients need.
    Activations,
    /// Each stage's input alone: the stage is computed once more, to the same numbers, when its gradients are due. A third more work, and
    /// the memory of one block instead of all (Chen et al., 2016).
    Inputs,
}

impl Kept {
    /// For receipts.
    pub fn label(self) -> &'static str {
        match self {
            Self::Activations => "kept",
            Self::Inputs => "recomputed",
        }
    }
}

/// An embedding, and the way back to the parameters it was made with.
pub struct EncoderPass {
    /// [B, C, T, T]
    embedding: Tensor,
    /// Each stage's input, a leaf; empty where the embedding has its whole graph.
    inputs: Vec<Tensor>,
}

impl EncoderPass {
    /// A preprocessed image through the encoder. [B, 3, S, S]
    pub fn forward(encoder: &ImageEncoder, image: &Tensor, kept: Kept) -> Result<Self> {
        match kept {
            Kept::Activations => Ok(Self { embedding: encoder.forward(image)?, inputs: Vec::new() }),
            Kept::Inputs => {
                let leaf = |x: Tensor, stage| x.f_detach()?.f_set_requires_grad(stage > 0);
                let mut x = image.shallow_clone();
                let mut inputs = Vec::new();
                for stage in 0..encoder.stages() {
                    let input = leaf(x, stage)?;
                    x = no_grad(|| encoder.stage(stage, &input))?;
                    inputs.push(input);
                }
                Ok(Self { embedding: leaf(x, encoder.stages())?, inputs })
            }
        }
    }

    /// [B, C, T, T]; what is computed from it has gradients that reach back.
    pub fn embedding(&self) -> &Tensor {
        &self.embedding
    }

    /// The gradient of a scalar made of the embedding with respect to each parameter, in the parameters' order. The graph is gone after it.
    pub fn gradients(self, scalar: &Tensor, encoder: &ImageEncoder, parameters: &EncoderParameters) -> Result<Vec<Tensor>> {
        let Self { embedding, mut inputs } = self;
        if inputs.is_empty() {
            return Tensor::f_run_backward(&[scalar], parameters.tensors(), false, false);
        }
        let [mut of_output] = <[Tensor; 1]>::try_from(Tensor::f_run_backward(&[scalar], &[&embedding], false, false)?)
            .expect("one gradient for one input");
        let mut gradients: Vec<Option<Tensor>> = parameters.tensors().iter().map(|_| None).collect();
        for stage in (0..encoder.stages()).rev() {
            let input = inputs.pop().expect("each stage has an input");
            let places: Vec<usize> =
                (0..gradients.len()).filter(|&place| encoder.stage_of(parameters.name(place)) == stage).collect();
            let mut leaves: Vec<&Tensor> = places.iter().map(|&place| &parameters.tensors()[place]).collect();
            if stage > 0 {
                leaves.push(&input);
            }
            // The product's gradient to the stage's output is what came from above.
            let scalar = encoder.stage(stage, &input)?.f_mul(&of_output)?.f_sum(None::<tch::Kind>)?;
            let mut found = Tensor::f_run_backward(&[&scalar], &leaves, false, false)?;
            if stage > 0 {
                of_output = found.pop().expect("as many gradients as leaves");
            }
            for (place, gradient) in places.into_iter().zip(found) {
                gradients[place] = Some(gradient);
            }
        }
        let missing = || TchError::Torch("a parameter of the image encoder belongs to no stage".into());
        gradients.into_iter().map(|gradient| gradient.ok_or_else(missing)).collect()
    }
}
