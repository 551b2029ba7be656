// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/page_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace trireme::ps {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kLargePage = std::size_t{2}
                                   << 20;  // of x86-64, and of arm64 with 4 KiB pages

std::size_t rounded_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

PageMemory::PageMemory(std::size_t bytes) {
  const bool large = bytes >= kLargePage;
  bytes_ = rounded_up(bytes, large ? kLargePage : kPage);
  // Memory is given when it is touched, and tables reserve ahead: without a promise of swap space.
  const std::size_t extra = large ? kLargePage : 0;
  void* const got = ::mmap(nullptr, bytes_ + extra, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (got == MAP_FAILED) throw std::bad_alloc();
  auto* const first = static_cast<std::byte*>(got);
  begin_ = first;
  if (!large) return;
  const auto address = reinterpret_cast<std::uintptr_t>(first);
  const std::size_t before = rounded_up(address, kLargePage) - address;
  begin_ = first + before;
  if (before > 0) ::munmap(first, before);
  if (extra > before) ::munmap(begin_ + bytes_, extra - before);
  // Where the kernel has no large pages, small ones do, slower.
  ::madvise(begin_, bytes_, MADV_HUGEPAGE);
}

PageMemory::~PageMemory() {
  if (begin_ != nullptr) ::munmap(begin_, bytes_);
}

}  // namespace trireme::ps
