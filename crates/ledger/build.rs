//! Cargo does not know that `migrate!` and the query macros read these folders.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
    println!("cargo:rerun-if-changed=../../.sqlx");
}
