//! The driver API through unmodified cudarc: memory, streams, events, graphs, modules, limits, and what is refused.

mod common;

use common::{Given, floats, launch, load, to_floats};
use cudarc::driver::{CudaContext, DevicePtrMut, DriverError, sys};
use std::process::Command;
use std::sync::Mutex;
use vitrine_emulator::{counters, take_findings};

const BUGS: &str = include_str!("kernels/bugs.ptx");

/// The counters and the capacity are the whole process's.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    vitrine_emulator::install();
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn text(error: DriverError) -> String {
    error.error_string().unwrap().to_string_lossy().into_owned()
}

#[test]
fn cudarc_s_safe_layer_works() {
    let _alone = alone();
    let context = CudaContext::new(0).unwrap();
    assert_eq!(
        (context.name().unwrap().as_str(), context.compute_capability().unwrap()),
        ("Vitrine emulator", (8, 0))
    );
    let stream = context.new_stream().unwrap();
    let x = stream.clone_htod(&[1.0f32, 2.0, 3.0]).unwrap();
    let mut y = stream.alloc_zeros::<f32>(3).unwrap();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), [0.0; 3]);
    stream.memcpy_dtod(&x, &mut y).unwrap();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), [1.0, 2.0, 3.0]);
    let (start, end) = (
        context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).unwrap(),
        context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).unwrap(),
    );
    start.record(&stream).unwrap();
    end.record(&stream).unwrap();
    assert!(start.elapsed_ms(&end).unwrap() >= 0.0);
    // cudarc's default: without timing.
    let untimed = context.new_event(None).unwrap();
    untimed.record(&stream).unwrap();
    assert!(start.elapsed_ms(&untimed).is_err());
    // SAFETY: written before it is read.
    let mut pinned = unsafe { context.alloc_pinned::<f32>(3) }.unwrap();
    stream.memcpy_dtoh(&y, &mut pinned).unwrap();
    assert_eq!(pinned.as_slice().unwrap(), [1.0, 2.0, 3.0]);
}

#[test]
fn a_graph_replays_what_was_captured() {
    let _alone = alone();
    let context = CudaContext::new(0).unwrap();
    // SAFETY: one stream; what capture needs.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    let mut x = stream.clone_htod(&[1.0f32; 4]).unwrap();
    let y = stream.clone_htod(&[5.0f32; 4]).unwrap();
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    stream.memcpy_dtod(&y, &mut x).unwrap();
    assert!(stream.alloc_zeros::<f32>(4).is_err(), "no allocation while capturing");
    let instantiate = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(instantiate).unwrap().unwrap();
    assert_eq!(stream.clone_dtoh(&x).unwrap(), [1.0; 4], "captured, not run");
    let before = counters().graph_launches;
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&x).unwrap(), [5.0; 4]);
    assert_eq!(counters().graph_launches, before + 1);
}

#[test]
fn stale_handles_are_errors() {
    let _alone = alone();
    let context = CudaContext::new(0).unwrap();
    // cudarc ends both at the end of the block.
    let (stream, event) = {
        let (stream, event) = (context.new_stream().unwrap(), context.new_event(None).unwrap());
        (stream.cu_stream(), event.cu_event())
    };
    let stale = |status: sys::CUresult| assert_eq!(status, sys::CUresult::CUDA_ERROR_INVALID_HANDLE);
    // SAFETY: handles are looked up, so stale ones do no harm.
    unsafe {
        stale(sys::cuStreamSynchronize(stream));
        stale(sys::cuStreamDestroy_v2(stream));
        stale(sys::cuEventRecord(event, std::ptr::null_mut()));
        stale(sys::cuEventSynchronize(event));
        stale(sys::cuEventQuery(event));
        stale(sys::cuEventDestroy_v2(event));
        stale(sys::cuStreamWaitEvent(std::ptr::null_mut(), event, 0));
        stale(sys::cuGraphDestroy(event.cast()));
        stale(sys::cuModuleUnload(stream.cast()));
    }
}

#[test]
fn a_thread_without_the_context_can_do_nothing() {
    let _alone = alone();
    let context = CudaContext::new(0).unwrap();
    let allocate = || {
        let mut address = 0;
        // SAFETY: there is room for the address.
        let status = unsafe { sys::cuMemAlloc_v2(&raw mut address, 16) };
        status.result().map(|()| address)
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let error = allocate().expect_err("no context");
            assert_eq!(error.0, sys::CUresult::CUDA_ERROR_INVALID_CONTEXT);
            context.bind_to_thread().unwrap();
            allocate().unwrap()
        });
        let address = other.join().unwrap();
        // SAFETY: allocated above, freed once.
        unsafe { sys::cuMemFree_v2(address) }.result().unwrap();
    });
}

/// A device reads the source of a copy later than the call: the emulator, which reads it at once, compares it at the next wait.
#[test]
fn page_locked_memory_may_not_be_written_before_its_copy_is_done() {
    let _alone = alone();
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    let before = context.mem_get_info().unwrap();
    // SAFETY: written before it is read.
    let mut pinned = unsafe { context.alloc_pinned::<u8>(1000) }.unwrap();
    assert_eq!(context.mem_get_info().unwrap(), before, "host memory does not fill the device");
    let source = pinned.as_mut_ptr().unwrap();
    let mut target = stream.alloc_zeros::<u8>(1000).unwrap();
    let (address, event) = (target.device_ptr_mut(&stream).0, context.new_event(None).unwrap());
    // SAFETY: source and target are alive and have 1000 bytes.
    let send = || unsafe {
        source.write_bytes(1, 1000);
        sys::cuMemcpyHtoDAsync_v2(address, source.cast(), 1000, stream.cu_stream()).result().unwrap();
    };
    // SAFETY: byte 7 is inside.
    let change = || unsafe { source.add(7).write(2) };

    send();
    stream.synchronize().unwrap();
    change();
    stream.synchronize().unwrap();

    send();
    event.record(&stream).unwrap();
    event.synchronize().unwrap();
    change();
    stream.synchronize().unwrap();

    // Recorded before the copy, so it says nothing about it.
    event.record(&stream).unwrap();
    send();
    event.synchronize().unwrap();
    change();
    let error = stream.synchronize().expect_err("written too early");
    assert!(text(error).starts_with("byte 7 of 1000 of page-locked memory was written while a copy"));
    stream.synchronize().expect("said once");
}

#[test]
fn a_full_device_says_so() {
    let _alone = alone();
    let context = CudaContext::new(0).unwrap();
    let (free, total) = context.mem_get_info().unwrap();
    vitrine_emulator::set_capacity(total - free + 1000);
    let result = context.default_stream().alloc_zeros::<u8>(2000);
    vitrine_emulator::set_capacity(total);
    let Err(error) = result else { panic!("2000 bytes do not fit") };
    assert_eq!(error.0, sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    assert!(text(error).starts_with("2000 bytes asked for, 1000 of "));
}

#[test]
fn modules_are_read_strictly() {
    let _alone = alone();
    let kernel = |body: &str| {
        format!(
            ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry k()\n{{\n.reg .b32 %r<3>;\n{body}\nret;\n}}\n"
        )
    };
    load(&kernel("mov.u32 %r1, %tid.x;")).unwrap();
    let refused = |body: &str| {
        let error = load(&kernel(body)).expect_err("refused");
        assert_eq!(error.0, sys::CUresult::CUDA_ERROR_INVALID_PTX);
        text(error)
    };
    assert_eq!(
        refused("frobnicate.u32 %r1, %r2;"),
        "PTX line 7: instruction `frobnicate.u32` is not emulated"
    );
    assert_eq!(
        refused("add.u32.sideways %r1, %r2, %r2;"),
        "PTX line 7: `add.u32.sideways`: `.sideways` is not emulated"
    );
    assert_eq!(refused("mov.u32 %r1, %r9;"), "PTX line 7: `%r9` is not declared");
    assert_eq!(refused("bra nowhere;"), "PTX line 7: `nowhere` is not declared");
    let narrow = ".version 8.4\n.target sm_80\n.address_size 32\n";
    for nothing in ["", "\u{7f}", ".version 8.4", ".version 8.4\n.target sm_80", narrow, "a page of prose {"]
    {
        let error = load(nothing).expect_err("no module");
        assert_eq!(error.0, sys::CUresult::CUDA_ERROR_INVALID_PTX, "{nothing:?}");
    }
    let error = load("\u{7f}ELF and more").expect_err("a cubin");
    assert_eq!(error.0, sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
    let error = launch(load(BUGS).unwrap(), "no_such_kernel", 1, 1, 0, &[]).expect_err("no such kernel");
    assert_eq!(text(error), "no kernel no_such_kernel in the module");
}

#[test]
fn launches_have_limits() {
    let _alone = alone();
    let module = load(BUGS).unwrap();
    let refused = |threads: u32, shared: u32, blocks: u32| {
        let error =
            launch(module, "gives_up", blocks, threads, shared, &[Given::Room(4)]).expect_err("refused");
        assert_eq!(error.0, sys::CUresult::CUDA_ERROR_INVALID_VALUE);
        assert!(take_findings().is_empty());
        text(error)
    };
    assert!(refused(2048, 0, 1).contains("2048 threads in a block, of at most 1024"));
    assert!(refused(32, 60_000, 1).contains("60000 bytes of dynamic shared memory, of at most 49152"));
    assert!(refused(32, 0, 0).contains("is not a grid"));
}

#[test]
fn counters_count() {
    let _alone = alone();
    let module = load(BUGS).unwrap();
    let before = counters();
    let arguments = [floats(vec![0.0; 64]), Given::Int(64)];
    let arrays = launch(module, "correct_early_return", 1, 64, 0, &arguments).unwrap();
    assert_eq!(to_floats(&arrays[0])[2], 1.0);
    let after = counters();
    assert_eq!((after.launches - before.launches, after.allocations - before.allocations), (1, 1));
    assert!(after.instructions > before.instructions);
}

/// The device can be taken away, for tests of what a program says then: in a process of its own.
#[test]
fn no_device() {
    if std::env::var("VITRINE_EMULATOR_DEVICES").as_deref() == Ok("0") {
        vitrine_emulator::install();
        let error = CudaContext::new(0).expect_err("no device");
        assert_eq!(error.0, sys::CUresult::CUDA_ERROR_NO_DEVICE);
        return;
    }
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new(this);
    child.args(["no_device", "--exact"]).env("VITRINE_EMULATOR_DEVICES", "0");
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
