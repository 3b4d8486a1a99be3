//! `drawbridge-sandbox`: the sandbox by itself, until Ctrl-C.

fn main() {
    todo!("main")
}
