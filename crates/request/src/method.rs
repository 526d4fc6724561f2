use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A way from dots to a mask: the paper's own, and what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// SAM with the points as its prompt ("SAM w/P").
    SamPoints,
    /// SAM with the initial mask as its prompt ("SAM w/J").
    SamMask,
    /// The initial mask itself ("J").
    InitialMask,
    /// Superpixels in two clusters of colour, of which the points choose one (appendix C).
    SuperClustering,
    /// SAM without a prompt, min-max and threshold: what the fine-tuning starts from. Not in the paper; without it a gain over the
    /// initial mask cannot be credited to the fine-tuning.
    Untuned,
    /// The method ("Ours").
    Finetuned,
}

/// A name that no method has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("method {name:?} is unknown, expected sam_points, sam_mask, initial_mask, super_clustering, untuned or finetuned")]
pub struct UnknownMethod {
    name: String,
}

impl Method {
    /// All, in the order of the paper's tables.
    pub const ALL: [Self; 6] =
        [Self::SamPoints, Self::SamMask, Self::InitialMask, Self::SuperClustering, Self::Untuned, Self::Finetuned];

    /// "all", or names separated by commas: each once, in the tables' order.
    pub fn several(names: &str) -> Result<Vec<Self>, UnknownMethod> {
        if names == "all" {
            return Ok(Self::ALL.into());
        }
        let mut methods: Vec<Self> = names.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>()?;
        methods.sort_unstable();
        methods.dedup();
        Ok(methods)
    }

    /// As in requests, on command lines and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::SamPoints => "sam_points",
            Self::SamMask => "sam_mask",
            Self::InitialMask => "initial_mask",
            Self::SuperClustering => "super_clustering",
            Self::Untuned => "untuned",
            Self::Finetuned => "finetuned",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        let unknown = || UnknownMethod { name: name.chars().take(80).collect() };
        Self::ALL.into_iter().find(|method| method.name() == name).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_methods_name_is_the_same_everywhere() {
        for method in Method::ALL {
            assert_eq!(method.name().parse(), Ok(method));
            assert_eq!(serde_json::to_value(method).unwrap(), method.name());
        }
        assert_eq!(Method::several("finetuned, sam_mask,finetuned"), Ok(vec![Method::SamMask, Method::Finetuned]));
        assert!(Method::several("").is_err() && Method::several("all,sam_mask").is_err());
        assert!("ours".parse::<Method>().unwrap_err().to_string().contains("expected sam_points"));
    }
}
