use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Choices;

/// The most fine-tuning steps one request may ask for.
pub const MAX_STEPS: u32 = 10_000;

/// A named set of the method's choices; what each one means is the segmenter's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// The paper's text, with sound numerics where the text is silent.
    #[default]
    Paper,
    /// The authors' code as published, flaws included: to repeat the paper's tables and to be checked against it.
    PublishedCode,
}

impl std::str::FromStr for Recipe {
    type Err = ParametersError;

    fn from_str(name: &str) -> Result<Self, ParametersError> {
        match name {
            "paper" => Ok(Self::Paper),
            "published_code" => Ok(Self::PublishedCode),
            other => Err(ParametersError::Recipe { name: other.into() }),
        }
    }
}

impl std::fmt::Display for Recipe {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Paper => "paper",
            Self::PublishedCode => "published_code",
        })
    }
}

/// How to segment; every field has the paper's value as its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, try_from = "Unchecked")]
pub struct Parameters {
    /// Fine-tuning steps on the one image.
    pub steps: u32,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// The method's other choices, by the name of their set.
    pub recipe: Recipe,
    /// Each of them. In JSON only those that differ from the recipe's need to be named.
    pub choices: Choices,
}

/// Why parameters are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParametersError {
    /// No step leaves no prediction to choose from; too many hold a worker for hours.
    #[error("steps is {steps}, expected 1 to {MAX_STEPS}")]
    Steps {
        /// As given.
        steps: u32,
    },
    /// Zero, negative, NaN or above one.
    #[error("learning_rate is {learning_rate}, expected more than 0 and at most 1")]
    LearningRate {
        /// As given.
        learning_rate: f64,
    },
    /// A name that stands for nothing.
    #[error("recipe {name:?} is unknown, expected paper or published_code")]
    Recipe {
        /// As given.
        name: String,
    },
    /// A choice that does not exist, or a value it cannot have.
    #[error("choices: {reason}")]
    Choice {
        /// What is wrong with it.
        reason: String,
    },
}

impl Default for Parameters {
    fn default() -> Self {
        Self::of(Recipe::Paper)
    }
}

impl Parameters {
    /// The paper's steps and rate, with a recipe's choices.
    pub fn of(recipe: Recipe) -> Self {
        Self { steps: 100, learning_rate: 1e-5, recipe, choices: Choices::of(recipe) }
    }

    /// A recipe, some of its choices made otherwise, each a `name=value`.
    pub fn chosen(steps: u32, learning_rate: f64, recipe: Recipe, otherwise: &[String]) -> Result<Self, ParametersError> {
        let choices = otherwise.iter().try_fold(Choices::of(recipe), |choices, choice| choices.with_text(choice))?;
        Self { steps, learning_rate, recipe, choices }.checked()
    }

    /// Refuses values that no run can use.
    pub fn checked(self) -> Result<Self, ParametersError> {
        if !(1..=MAX_STEPS).contains(&self.steps) {
            return Err(ParametersError::Steps { steps: self.steps });
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return Err(ParametersError::LearningRate { learning_rate: self.learning_rate });
        }
        Ok(self)
    }
}

/// [`Parameters`] as they come in, before the check.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Unchecked {
    steps: u32,
    learning_rate: f64,
    recipe: Recipe,
    choices: Map<String, Value>,
}

impl Default for Unchecked {
    fn default() -> Self {
        let Parameters { steps, learning_rate, recipe, .. } = Parameters::default();
        Self { steps, learning_rate, recipe, choices: Map::new() }
    }
}

impl TryFrom<Unchecked> for Parameters {
    type Error = ParametersError;

    fn try_from(Unchecked { steps, learning_rate, recipe, choices }: Unchecked) -> Result<Self, ParametersError> {
        Self { steps, learning_rate, recipe, choices: Choices::of(recipe).with(&choices)? }.checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_the_papers_values() {
        let parameters: Parameters = serde_json::from_str(r#"{"steps": 5}"#).expect("valid");
        assert_eq!(parameters, Parameters { steps: 5, ..Parameters::default() });
    }

    #[test]
    fn a_recipe_is_taken_whole_but_for_the_choices_named() {
        let json = r#"{"recipe": "published_code", "choices": {"padding": "excluded"}}"#;
        let parameters: Parameters = serde_json::from_str(json).expect("valid");
        let choices = Choices { padding: crate::Padding::Excluded, ..Choices::of(Recipe::PublishedCode) };
        assert_eq!(parameters, Parameters { choices, ..Parameters::of(Recipe::PublishedCode) });
        let written = serde_json::to_string(&parameters).expect("serialises");
        assert_eq!(serde_json::from_str::<Parameters>(&written).expect("valid"), parameters);
    }

    #[test]
    fn refuses_what_no_run_can_use() {
        for (json, part) in [
            (r#"{"steps": 0}"#, "steps is 0"),
            (r#"{"steps": 10001}"#, "steps is 10001"),
            (r#"{"learning_rate": 0}"#, "learning_rate is 0"),
            (r#"{"learning_rate": -1e-5}"#, "learning_rate"),
            (r#"{"recipe": "papre"}"#, "papre"),
            (r#"{"step": 100}"#, "step"),
            (r#"{"choices": {"padding": "some"}}"#, "included"),
        ] {
            let error = serde_json::from_str::<Parameters>(json).expect_err(json).to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
