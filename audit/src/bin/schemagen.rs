//! Prints the JSON Schema of audit events.

fn main() {
    print!("{}", drawbridge_audit::event::schema());
}
