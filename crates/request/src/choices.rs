use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ParametersError, Recipe};

/// Every choice of the method that the paper leaves open, or that its published code makes otherwise, or that we add.
///
/// A [`Recipe`] names one consistent set; a request may choose single ones otherwise. What most of them do to the result was measured with
/// the small checkpoint in `models/nano`; docs/EVALUATION.md has the figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choices {
    /// How often pixels are normalised on their way to the encoder.
    pub normalisation: Normalisation,
    /// How the similarities of several points of one label become one map.
    pub similarity: Similarity,
    /// Which of the similar tokens belong to the initial mask.
    pub region: Region,
    /// Whether the padding below or right of the image has a say in the initial mask, the min-max and the loss.
    pub padding: Padding,
    /// What the cross-entropy's gradient is at the prediction's own minimum and maximum.
    pub extremes: Extremes,
    /// Added to numerator and denominator of the soft Dice. The paper does not say: 1. The published code: 2, in these terms.
    pub dice_smoothing: f64,
    /// How the answer comes to the image's own size.
    pub upsampling: Upsampling,
    /// How SAM is asked in the comparison by points.
    pub sam_points: SamPoints,
    /// Where the logits of SAM's own answers are cut in the comparisons by points and by the initial mask.
    pub sam_threshold: SamThreshold,
    /// Where an evaluation draws its random points.
    pub dots: Dots,
}

/// See [`Choices::normalisation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// Once, as SAM was trained. The forward pass that gives the initial mask is then also the first step's.
    Once,
    /// Once for the initial mask; twice for the fine-tuning and for SAM's own answers, as the published code's data loader and model
    /// both do it.
    Twice,
}

/// See [`Choices::similarity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// The mean over the points of one label: with equal counts the same as the paper's sum, and with three positive points against one
    /// negative no vote on counts.
    Mean,
    /// The sum, as the paper writes it.
    Sum,
}

/// See [`Choices::region`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    /// Every similar token, wherever it lies: the paper's, for many objects of one kind.
    Everywhere,
    /// The similar tokens within or about the convex hull of the positive points and nearer to one of them than to any negative one, gaps
    /// closed: not in the paper, for one object among look-alikes, such as an organ. Wrong for many objects of one kind.
    NearPoints,
}

/// See [`Choices::padding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// It takes part, as in the published code.
    Included,
    /// It is left out.
    Excluded,
}

/// See [`Choices::extremes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extremes {
    /// Those two pixels are 0 and 1 whatever the weights, so their cross-entropy is a constant: agrees with the gradient in f64.
    Constant,
    /// As autograd has it in fp32, where terms of 1e7 must cancel and do not: the published code's.
    Autograd,
}

/// See [`Choices::upsampling`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upsampling {
    /// The soft map, bilinear without aligned corners, then the threshold: SAM's own way.
    Soft,
    /// The thresholded map, bilinear with aligned corners, then the threshold again: the published code's.
    Binary,
}

/// See [`Choices::sam_points`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamPoints {
    /// All points as one prompt: the paper's text, and SAM's use.
    Joint,
    /// Each point alone, the logits of each label summed, and, where there are negative points, foreground where their sum is the
    /// GREATER: the published code, which explains the collapse in the paper's tables.
    OneByOne,
}

/// See [`Choices::sam_threshold`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamThreshold {
    /// At zero, as SAM was trained.
    Zero,
    /// Half-way between the least and the greatest logit: the published code's min-max and threshold at a half.
    Middle,
}

/// See [`Choices::dots`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dots {
    /// On the pixels of the image.
    Pixels,
    /// On the grid of tokens, as the published code does.
    Tokens,
}

impl Choices {
    /// The paper's text, sound numerics where it is silent.
    const PAPER: Self = Self {
        normalisation: Normalisation::Once,
        similarity: Similarity::Mean,
        region: Region::Everywhere,
        padding: Padding::Included,
        extremes: Extremes::Constant,
        dice_smoothing: 1.0,
        upsampling: Upsampling::Soft,
        sam_points: SamPoints::Joint,
        sam_threshold: SamThreshold::Zero,
        dots: Dots::Pixels,
    };

    /// The authors' code as published, flaws included.
    const PUBLISHED_CODE: Self = Self {
        normalisation: Normalisation::Twice,
        similarity: Similarity::Sum,
        region: Region::Everywhere,
        padding: Padding::Included,
        extremes: Extremes::Autograd,
        dice_smoothing: 2.0,
        upsampling: Upsampling::Binary,
        sam_points: SamPoints::OneByOne,
        sam_threshold: SamThreshold::Middle,
        dots: Dots::Tokens,
    };

    /// What a recipe's name stands for.
    pub fn of(recipe: Recipe) -> Self {
        match recipe {
            Recipe::Paper => Self::PAPER,
            Recipe::PublishedCode => Self::PUBLISHED_CODE,
        }
    }

    /// The same with some choices made otherwise: a JSON object of names and values.
    pub fn with(self, otherwise: &Map<String, Value>) -> Result<Self, ParametersError> {
        let Ok(Value::Object(mut all)) = serde_json::to_value(self) else {
            unreachable!("a struct of numbers and names is a JSON object");
        };
        all.extend(otherwise.clone());
        let choices: Self =
            serde_json::from_value(Value::Object(all)).map_err(|error| ParametersError::Choice { reason: error.to_string() })?;
        if choices.dice_smoothing > 0.0 && choices.dice_smoothing.is_finite() {
            Ok(choices)
        } else {
            Err(ParametersError::Choice { reason: "dice_smoothing must be more than 0".into() })
        }
    }

    /// The same with one choice made otherwise: `name=value`, as on a command line.
    pub fn with_text(self, choice: &str) -> Result<Self, ParametersError> {
        let Some((name, value)) = choice.split_once('=') else {
            return Err(ParametersError::Choice { reason: format!("{choice:?} is no choice, expected name=value") });
        };
        let value = value.parse::<f64>().map_or_else(|_| Value::from(value), Value::from);
        self.with(&Map::from_iter([(name.to_owned(), value)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_choice_is_made_otherwise_and_the_others_stay() {
        let choices = Choices::of(Recipe::Paper).with_text("padding=excluded").unwrap();
        assert_eq!(choices, Choices { padding: Padding::Excluded, ..Choices::of(Recipe::Paper) });
        let choices = Choices::of(Recipe::PublishedCode).with_text("dice_smoothing=0.5").unwrap();
        assert_eq!(choices, Choices { dice_smoothing: 0.5, ..Choices::of(Recipe::PublishedCode) });
    }

    #[test]
    fn refuses_a_choice_that_does_not_exist() {
        for (text, part) in [
            ("padding", "name=value"),
            ("paddin=excluded", "unknown field `paddin`"),
            ("padding=none", "expected `included` or `excluded`"),
            ("dice_smoothing=0", "more than 0"),
        ] {
            let error = Choices::of(Recipe::Paper).with_text(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
