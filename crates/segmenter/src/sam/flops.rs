//! How much arithmetic a step is.

use super::Architecture;

impl Architecture {
    /// Floating-point operations of the matrix products of one step of fine-tuning the image encoder, forward and backward, as SAM was
    /// published: a multiplication and an addition are two, and windows are padded before the linear layers. It is the same number
    /// whatever an implementation leaves out or computes twice, so rates made of it can be compared.
    ///
    /// The backward pass is counted as two forward passes: a product's gradient is one product for each of its factors. What is small
    /// is left out: the decoder (0.2 % of ViT-B), norms, softmax, GELU, Adam.
    pub fn step_flops(&self) -> f64 {
        let &Self { patch, grid, dim, mlp, embedding, ref windows, .. } = self;
        let tokens = grid * grid;
        let patches = tokens * 3 * patch * patch * dim;
        let neck = tokens * (dim * embedding + 9 * embedding * embedding);
        let block = |window: &Option<i64>| {
            let side = window.unwrap_or(grid);
            let windows = (grid as u64).div_ceil(side as u64).pow(2) as i64;
            let (length, padded) = (side * side, windows * side * side);
            let linear = padded * 4 * dim * dim + tokens * 2 * dim * mlp; // qkv and proj; lin1 and lin2
            let attention = padded * length * 2 * dim; // q k^T and its product with v
            let positions = padded * 2 * side * dim; // q with each row and each column
            linear + attention + positions
        };
        let multiplications = patches + neck + windows.iter().map(block).sum::<i64>();
        3.0 * 2.0 * multiplications as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sam::OfficialSize;

    #[test]
    fn counts_the_products_of_the_published_sizes() {
        // ViT-B term by term: 8 blocks of 25 windows of 196 tokens, 4 blocks of 4096 tokens, width 768.
        let windowed = 4900 * (4 * 768 * 768 + 196 * 2 * 768 + 2 * 14 * 768) + 4096 * 2 * 768 * 3072_i64;
        let global = 4096 * (4 * 768 * 768 + 4096 * 2 * 768 + 2 * 64 * 768 + 2 * 768 * 3072_i64);
        let ends = 4096 * (3 * 16 * 16 * 768 + 768 * 256 + 9 * 256 * 256_i64);
        let expected = 6.0 * (8 * windowed + 4 * global + ends) as f64;
        assert!((Architecture::from(OfficialSize::VitB).step_flops() - expected).abs() < 1.0, "whole numbers");
        for (size, tera) in [(OfficialSize::VitB, "2.92"), (OfficialSize::VitL, "8.96"), (OfficialSize::VitH, "17.88")] {
            assert_eq!(format!("{:.2}", Architecture::from(size).step_flops() / 1e12), tera, "{size}");
        }
    }
}
