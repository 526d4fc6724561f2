//! The choices the paper leaves open, or that its published code makes otherwise.

use request::Recipe;

/// One consistent set of choices.
///
/// What is not a number here is said where it is done: pixels are normalised once (`sam::preprocess`), the padded band takes part in J
/// and in the loss, the pixels of the prediction's minimum and maximum are constants in the BCE (`loss`), and the answer is resized
/// as a soft map, by SAM's own way (`upsample`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choices {
    /// A min-max normalised map is foreground above this.
    pub threshold: f64,
    /// Added to numerator and denominator of the soft Dice.
    pub dice_smoothing: f64,
    /// Adam's decay rates of the first and second moment.
    pub adam_betas: (f64, f64),
    /// Added to Adam's denominator.
    pub adam_epsilon: f64,
}

impl Choices {
    /// The paper's text; PyTorch's defaults for Adam, which it names without its constants.
    const PAPER: Self = Self { threshold: 0.5, dice_smoothing: 1.0, adam_betas: (0.9, 0.999), adam_epsilon: 1e-8 };

    /// What a recipe's name stands for.
    pub fn of(recipe: Recipe) -> Self {
        match recipe {
            Recipe::Paper | Recipe::PublishedCode => Self::PAPER,
        }
    }
}
