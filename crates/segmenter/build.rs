//! Compiles what tch lacks of libtorch, against the libtorch that torch-sys found.

use std::{env, path::Path};

fn main() {
    let library = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys tells where libtorch's libraries are");
    // As torch-sys looks for them: LIBTORCH_INCLUDE, or beside the libraries.
    let root = env::var("LIBTORCH_INCLUDE").map_or_else(|_| Path::new(&library).join(".."), Into::into);
    let include = root.join("include");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-changed=native");

    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").pic(true).opt_level(3).warnings(true).extra_warnings(true);
    // Headers of libtorch are not ours to mend.
    build.flag("-isystem").flag(&include).flag("-isystem").flag(include.join("torch/csrc/api/include"));
    build.flag("-Wno-unused-parameter");
    // For the loops over a tile: `omp simd`, and no care for the flags that nobody reads.
    build.flag("-fopenmp-simd").flag("-fno-math-errno").flag("-fno-trapping-math");
    build.files(["native/attention.cpp", "native/linear.cpp", "native/optimiser.cpp", "native/runtime.cpp"]);
    build.compile("dotmask_native");
}
