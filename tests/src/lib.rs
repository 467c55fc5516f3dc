//! What the black-box tests and benchmarks of Gatepost share: the daemon as a process, and the programs beside it.

pub mod accounts;
pub mod fuzz;
pub mod limits;
pub mod mixed;
pub mod nodemailer;
pub mod postfix;
pub mod processes;
pub mod programs;
pub mod refusals;
pub mod server;
pub mod small_disk;
pub mod smtp;
pub mod wait;
