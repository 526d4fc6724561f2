/// What a thread of the client needs for the deepest message. Headers of a message may lie in each other, five bytes a level, in one
/// frame of 128 KiB by the server's default, and each level costs the client some 2 KiB: 45 MiB, where a thread has 2 MiB. Nothing of it
/// is in use before it is needed.
const STACK_BYTES: &str = "67108864";
const VARIABLE: &str = "RUST_MIN_STACK";

/// Gives threads that start from now on a stack that no message's headers exhaust, unless the environment says how much they get.
/// The client starts its threads by itself, and has no other setting for it. Whoever may send to a queue could end every worker otherwise.
///
/// # Safety
///
/// No other thread may run yet: the environment is changed.
#[expect(unsafe_code, reason = "the standard library reads the size from the environment alone")]
pub unsafe fn prepare_threads() {
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: the caller has seen to it.
        unsafe { std::env::set_var(VARIABLE, STACK_BYTES) };
    }
}
