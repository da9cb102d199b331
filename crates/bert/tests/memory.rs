//! What a long text costs, in bytes of memory beside it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use vitrine_bert::Tokenizer;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise that `pointer` came from `alloc` with `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_text_of_20_megabytes_costs_a_few_more() {
    const SIZE: usize = 20_000_000;
    let tokenizer =
        Tokenizer::from_vocabulary("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nword\n##a\n猫\n").unwrap();
    for part in
        ["word ", "a", "é", "猫", "!", "。", "\0", " ", "\u{301}", "a\0", "[SEP]", "👩\u{200d}🚀", "ก"]
    {
        let text = part.repeat(SIZE / part.len());
        let before = NOW.load(Relaxed);
        MOST.store(before, Relaxed);
        let started = std::time::Instant::now();
        tokenizer.encode(&text, 8).unwrap();
        let most = MOST.load(Relaxed) - before;
        println!("{part:?}: {} kB, {} ms", most / 1000, started.elapsed().as_millis());
        assert!(most < 8_000_000, "{part:?}: {most} bytes");
    }
}
