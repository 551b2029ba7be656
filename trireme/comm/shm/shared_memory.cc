// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/shm/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>

#include "trireme/base/error.h"
#include "trireme/base/process_cores.h"
#include "trireme/comm/shm/shared_word.h"

namespace trireme {
namespace {

std::string error_text() { return std::strerror(errno); }

[[noreturn]] void no_memory(const GroupScope& scope, std::size_t bytes) {
  throw_error<CommError>(
      "rank {} cannot reserve {} KiB of shared memory for group {}: {}; free memory, or use the "
      "gloo engine",
      scope.world->rank, bytes >> 10, scope.name, error_text());
}

}  // namespace

bool every_rank_has_a_core(const GroupScope& scope) {
  const auto& members = scope.world->members;
  const std::string& host = members[static_cast<std::size_t>(scope.world->rank)].host_id;
  const auto here = std::count_if(members.begin(), members.end(),
                                  [&](const Member& member) { return member.host_id == host; });
  // glibc 2.34 counts the cores of the calling thread, which may be pinned to one.
  const std::size_t cores =
      std::max<std::size_t>(std::thread::hardware_concurrency(), process_cores().size());
  return static_cast<std::size_t>(here) <= cores;
}

std::string find_memory(const GroupScope& scope, const std::string& key, int owner,
                        const OperationName& name, const Deadline& deadline) {
  const WaitBoard::Posted posted(scope, name, owner);
  std::optional<Deadline> last_words;
  return scope.world->control->get(key, deadline, [&] {
    // It says where before it says goodbye, but rank 0 may pass on the goodbye first.
    if (scope.has_left(owner) && !last_words) last_words = Deadline::after(kLastWordsTime);
    if (last_words && last_words->expired()) left_error(scope, name, owner);
    if (deadline.expired()) timeout_error(scope, name, {owner});
  });
}

void SharedMemory::Unmap::operator()(std::byte* map) const { munmap(map, bytes); }

SharedMemory SharedMemory::make(const GroupScope& scope, const Identity& identity,
                                std::size_t bytes) {
  SharedMemory memory;
  memory.fd_ = FileDescriptor(memfd_create("trireme", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const auto size = static_cast<off_t>(kProofBytes + bytes);
  if (!memory.fd_ || ftruncate(memory.fd_.get(), size) != 0 ||
      fallocate(memory.fd_.get(), 0, 0, kProofBytes) != 0 ||
      fcntl(memory.fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    no_memory(scope, bytes);
  }
  memory.map(scope, kProofBytes + bytes);
  std::memcpy(memory.map_.get(), &identity, sizeof(identity));
  return memory;
}

SharedMemory SharedMemory::open(const GroupScope& scope, const Identity& identity,
                                std::size_t bytes, const std::string& where, int owner) {
  SharedMemory memory;
  memory.fd_ = FileDescriptor(::open(where.c_str(), O_RDWR | O_CLOEXEC));
  if (!memory.fd_) {
    const std::string why = error_text();
    // Of a process that has just ended: that is what is to be told.
    scope.world->latch.throw_cause_of_a_break();
    throw_error<CommError>(
        "rank {} cannot open the shared memory of rank {} for group {} ({}): {}; do both run as "
        "the same user and still hold the group, or use the gloo engine",
        scope.world->rank, scope.member(owner).rank, scope.name, where, why);
  }
  struct stat status {};
  Identity found;
  if (fstat(memory.fd_.get(), &status) == 0 &&
      static_cast<std::size_t>(status.st_size) == kProofBytes + bytes) {
    memory.map(scope, kProofBytes + bytes);
    std::memcpy(&found, memory.map_.get(), sizeof(found));
  }
  if (!memory || found != identity) {
    throw_error<CommError>("what rank {} finds at {} is not the shared memory of group {}",
                           scope.world->rank, where, scope.name);
  }
  return memory;
}

std::string SharedMemory::where() const {
  return fmt::format("/proc/{}/fd/{}", getpid(), fd_.get());
}

void SharedMemory::reserve(const GroupScope& scope, std::size_t offset, std::size_t bytes) {
  if (fallocate(fd_.get(), 0, static_cast<off_t>(kProofBytes + offset),
                static_cast<off_t>(bytes)) != 0) {
    no_memory(scope, bytes);
  }
}

void SharedMemory::give_back(std::size_t offset, std::size_t bytes) {
  fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            static_cast<off_t>(kProofBytes + offset), static_cast<off_t>(bytes));
}

void SharedMemory::populate() const {
#if defined(MADV_POPULATE_WRITE)
  madvise(map_.get(), map_.get_deleter().bytes, MADV_POPULATE_WRITE);
#endif
}

void SharedMemory::map(const GroupScope& scope, std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (memory == MAP_FAILED) {
    throw_error<CommError>("rank {} cannot map {} KiB of shared memory for group {}: {}",
                           scope.world->rank, bytes >> 10, scope.name, error_text());
  }
  map_ = std::unique_ptr<std::byte, Unmap>(static_cast<std::byte*>(memory), Unmap{bytes});
}

}  // namespace trireme
