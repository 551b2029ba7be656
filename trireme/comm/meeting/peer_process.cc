// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/meeting/peer_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/meeting/handshake.h"
#include "trireme/comm/meeting/rendezvous.h"

namespace trireme {

struct LastWordsPage {
  std::uint64_t token;
  std::atomic<std::uint32_t> left;
  // Written once, after failure.
  std::atomic<std::uint32_t> failure_bytes;
  char failure[4096 - 16];
};
static_assert(sizeof(LastWordsPage) == 4096);

namespace {

std::string error_text() { return std::strerror(errno); }

LastWordsMapping map_page(const FileDescriptor& fd, int protection) {
  void* memory = mmap(nullptr, sizeof(LastWordsPage), protection, MAP_SHARED, fd.get(), 0);
  return LastWordsMapping(memory == MAP_FAILED ? nullptr : static_cast<LastWordsPage*>(memory));
}

// What stands at the path may be anything by now, should the process have ended and its id have
// been given to another.
LastWordsMapping open_page(const Member& member, std::string& why) {
  const FileDescriptor fd(
      open(member.last_words.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat status {};
  if (!fd || fstat(fd.get(), &status) != 0) {
    if (errno != ENOENT) why = fmt::format("{}: {}", member.last_words, error_text());
    return nullptr;
  }
  LastWordsMapping page;
  if (S_ISREG(status.st_mode) && status.st_size == sizeof(LastWordsPage)) {
    page = map_page(fd, PROT_READ);
  }
  if (page != nullptr && page->token != member.last_words_token) page.reset();
  return page;
}

}  // namespace

void UnmapLastWords::operator()(LastWordsPage* page) const { munmap(page, sizeof(*page)); }

LastWords::LastWords()
    : fd_(static_cast<int>(syscall(SYS_memfd_create, "trireme-last-words", MFD_CLOEXEC))) {
  if (fd_ && ftruncate(fd_.get(), sizeof(LastWordsPage)) == 0) {
    page_ = map_page(fd_, PROT_READ | PROT_WRITE);
  }
  if (page_ == nullptr) {
    throw_error<CommError>("no page of shared memory for the control plane: {}", error_text());
  }
  std::memcpy(&page_->token, make_nonce().data(), sizeof(page_->token));
}

std::string LastWords::path() const { return fmt::format("/proc/{}/fd/{}", getpid(), fd_.get()); }

std::uint64_t LastWords::token() const { return page_->token; }

void LastWords::failed(const Failure& failure) {
  if (page_->failure_bytes.load(std::memory_order_relaxed) != 0) return;
  Failure fitting = failure;
  std::string bytes = detail::encode_failure(fitting);
  if (bytes.size() > sizeof(page_->failure)) {
    const std::size_t excess = bytes.size() - sizeof(page_->failure);
    fitting.message.resize(fitting.message.size() - excess);
    bytes = detail::encode_failure(fitting);
  }
  std::memcpy(page_->failure, bytes.data(), bytes.size());
  page_->failure_bytes.store(static_cast<std::uint32_t>(bytes.size()), std::memory_order_release);
}

void LastWords::left() { page_->left.store(1, std::memory_order_release); }

std::unique_ptr<PeerProcess> PeerProcess::watch(const Member& member, std::string& why) {
  // The process first: the page then proves that it is the right one.
  FileDescriptor process(static_cast<int>(syscall(SYS_pidfd_open, member.pid, 0)));
  if (!process) {
    if (errno != ESRCH) why = fmt::format("pidfd_open: {}", error_text());
    return nullptr;
  }
  LastWordsMapping page = open_page(member, why);
  if (page == nullptr) return nullptr;
  return std::unique_ptr<PeerProcess>(
      new PeerProcess(member.rank, std::move(process), std::move(page)));
}

PeerProcess::PeerProcess(int rank, FileDescriptor process, LastWordsMapping page)
    : rank_(rank), process_(std::move(process)), page_(std::move(page)) {}

bool PeerProcess::ended() const {
  pollfd ready{process_.get(), POLLIN, 0};
  return poll(&ready, 1, 0) == 1;
}

bool PeerProcess::has_left() const { return page_->left.load(std::memory_order_acquire) != 0; }

std::optional<Failure> PeerProcess::failure() const {
  const std::size_t bytes = page_->failure_bytes.load(std::memory_order_acquire);
  if (bytes == 0 || bytes > sizeof(page_->failure)) return std::nullopt;
  try {
    return detail::decode_failure(std::string(page_->failure, bytes));
  } catch (const ProtocolError&) {
    return std::nullopt;
  }
}

}  // namespace trireme
