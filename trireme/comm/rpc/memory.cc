// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/rpc/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "trireme/comm/meeting/handshake.h"

namespace trireme {
namespace {

// A page, so that the data starts at one.
constexpr std::size_t kProofPageBytes = 4096;
// Far more than a machine has, and sums do not overflow.
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 46;

struct ProofPage {
  char token[kMemoryTokenBytes];
  std::atomic<std::uint32_t> freed;
};
static_assert(sizeof(ProofPage) <= kProofPageBytes);
static_assert(kMemoryTokenBytes == kNonceBytes);

ProofPage& page_of(std::byte* map) { return *reinterpret_cast<ProofPage*>(map); }

// More than all the machine's memory is not even tried: the kernel would first take away everybody
// else's.
bool can_be_reserved(std::size_t bytes) {
  const auto all = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) *
                   static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  if (bytes < all) return true;
  errno = ENOMEM;
  return false;
}

std::string error_text() { return std::strerror(errno); }

}  // namespace

void encode_notice(FieldWriter& writer, const MemoryNotice& notice) {
  writer.u64(notice.number)
      .u64(notice.process)
      .u32(notice.descriptor)
      .u64(notice.bytes)
      .raw(notice.token);
}

MemoryNotice decode_notice(FieldReader& reader) {
  MemoryNotice notice;
  notice.number = reader.u64();
  notice.process = reader.u64();
  notice.descriptor = reader.u32();
  notice.bytes = reader.u64();
  notice.token = reader.raw(kMemoryTokenBytes);
  if (notice.number == 0 || notice.bytes > kMostBytes) {
    throw_error<ProtocolError>("memory {} of {} bytes", notice.number, notice.bytes);
  }
  return notice;
}

void ArenaMemory::Unmap::operator()(std::byte* map) const { munmap(map, bytes); }

void ArenaMemory::map() {
  const std::size_t all = kProofPageBytes + bytes_;
  void* memory = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (memory == MAP_FAILED) {
    throw_error<CommError>("cannot map {} KiB of shared memory: {}", all >> 10, error_text());
  }
  map_ = std::unique_ptr<std::byte, Unmap>(static_cast<std::byte*>(memory), Unmap{all});
}

ArenaMemory ArenaMemory::make(std::uint64_t number, std::size_t bytes) {
  ArenaMemory memory;
  memory.number_ = number;
  memory.bytes_ = bytes;
  memory.token_ = make_nonce();
  memory.fd_ = FileDescriptor(memfd_create("trireme", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const auto size = static_cast<off_t>(kProofPageBytes + bytes);
  if (!can_be_reserved(bytes) || !memory.fd_ || ftruncate(memory.fd_.get(), size) != 0 ||
      fallocate(memory.fd_.get(), 0, 0, size) != 0 ||
      fcntl(memory.fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    throw_error<CommError>(
        "cannot reserve {} KiB of memory to share with servers of this host: {}; free memory or "
        "file descriptors (ulimit -n)",
        bytes >> 10, error_text());
  }
  memory.map();
  std::memcpy(page_of(memory.map_.get()).token, memory.token_.data(), kMemoryTokenBytes);
  return memory;
}

ArenaMemory ArenaMemory::open(const MemoryNotice& notice) {
  const std::string where = fmt::format("/proc/{}/fd/{}", notice.process, notice.descriptor);
  ArenaMemory memory;
  memory.number_ = notice.number;
  memory.bytes_ = notice.bytes;
  // Whatever stands there, opening it does not block.
  memory.fd_ = FileDescriptor(::open(where.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!memory.fd_) {
    throw_error<CommError>("shared memory {} cannot be opened ({}); do both run as the same user?",
                           where, error_text());
  }
  // Only a sealed memfd has this seal: nothing else is mapped.
  const int seals = fcntl(memory.fd_.get(), F_GET_SEALS);
  struct stat status {};
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(memory.fd_.get(), &status) != 0 ||
      static_cast<std::uint64_t>(status.st_size) != kProofPageBytes + notice.bytes) {
    throw_error<CommError>("what is found at {} is not {} bytes of shared memory", where,
                           notice.bytes);
  }
  memory.map();
  if (std::memcmp(page_of(memory.map_.get()).token, notice.token.data(), kMemoryTokenBytes) != 0) {
    throw_error<CommError>("what is found at {} is another memory than was told of", where);
  }
  memory.fd_ = FileDescriptor();
#if defined(MADV_POPULATE_WRITE)
  // All pages enter the page table at once, which costs less than a fault for each. Where the
  // kernel cannot (before Linux 5.14), they come with the faults.
  madvise(memory.map_.get(), memory.map_.get_deleter().bytes, MADV_POPULATE_WRITE);
#endif
  return memory;
}

std::byte* ArenaMemory::data() const { return map_.get() + kProofPageBytes; }

MemoryNotice ArenaMemory::notice() const {
  return {number_, static_cast<std::uint64_t>(getpid()), static_cast<std::uint32_t>(fd_.get()),
          bytes_, token_};
}

void ArenaMemory::free() {
  page_of(map_.get()).freed.store(1, std::memory_order_release);
  fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kProofPageBytes,
            static_cast<off_t>(bytes_));
}

bool ArenaMemory::freed() const {
  return page_of(map_.get()).freed.load(std::memory_order_acquire) != 0;
}

}  // namespace trireme
