//! New migrations must end up in the binary although no Rust file changed.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
