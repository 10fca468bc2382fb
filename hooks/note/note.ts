// Says on stdout how long the event is that it got: the least that a hook in AssemblyScript does.

// @ts-ignore: a decorator of AssemblyScript
@external("wasi_snapshot_preview1", "fd_read")
declare function fd_read(fd: i32, iovs: usize, iovs_len: i32, nread: usize): i32;
// @ts-ignore: a decorator of AssemblyScript
@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(fd: i32, iovs: usize, iovs_len: i32, nwritten: usize): i32;
// @ts-ignore: a decorator of AssemblyScript
@external("wasi_snapshot_preview1", "proc_exit")
declare function proc_exit(code: i32): void;

const STDIN: i32 = 0;
const STDOUT: i32 = 1;
const EXIT_FAILED: i32 = 1;

/** Where and how long, as WASI wants it: an address and a length. */
const piece = memory.data(8);
const count = memory.data(4);

function readAll(): i32 {
  const block = new ArrayBuffer(4096);
  let total = 0;
  while (true) {
    store<usize>(piece, changetype<usize>(block));
    store<i32>(piece, block.byteLength, 4);
    if (fd_read(STDIN, piece, 1, count) != 0) proc_exit(EXIT_FAILED);
    const length = load<i32>(count);
    if (length == 0) return total;
    total += length;
  }
}

function say(text: string): void {
  const bytes = String.UTF8.encode(text);
  store<usize>(piece, changetype<usize>(bytes));
  store<i32>(piece, bytes.byteLength, 4);
  if (fd_write(STDOUT, piece, 1, count) != 0) proc_exit(EXIT_FAILED);
}

export function _start(): void {
  say("an event of " + readAll().toString() + " bytes\n");
}
