//! PTX: read, linked, and kernels run for a little while on two blocks. An input that begins with a zero byte is a kernel
//! composed of instructions that are right by themselves; any other is text.
#![no_main]

use vitrine_emulator::machine::memory::DeviceMemory;
use vitrine_emulator::machine::{self, Checks, Launch};
use vitrine_emulator::ptx::parser::Module;
use vitrine_fuzz::{one_line, program, target};

target!(|data| {
    if let Some((0, program)) = data.split_first() {
        // Without the checks of memory, a kernel that reads what nothing wrote goes on.
        run(&program::compose(program), program.len() % 2 == 0).expect("a composed kernel is right");
        return;
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = run(text, true) {
        one_line(&error);
    }
});

fn run(text: &str, memory_checks: bool) -> Result<(), vitrine_emulator::ptx::PtxError> {
    let module = Module::parse(text)?;
    let mut memory = DeviceMemory::default();
    let mut room = |size: usize| memory.allocate(size.max(1)).expect("the device has room");
    let globals: Vec<u64> = module.variables.iter().map(|variable| room(variable.size)).collect();
    let buffer = room(4096);
    for kernel in module.link(&globals)?.iter().take(4) {
        // Every argument is the address of one buffer.
        let size = kernel.params.last().map_or(0, |last| last.offset + last.size);
        let params = buffer.to_le_bytes().into_iter().cycle().take(size).collect();
        let launch = Launch { grid: [2, 1, 1], block: [33, 1, 1], dynamic_shared: 256, params };
        let checks = Checks { memory: memory_checks, limit: 2000, total: 100_000 };
        if let Err(finding) = machine::run(kernel, &launch, checks, &mut memory) {
            one_line(&finding);
        }
    }
    Ok(())
}
