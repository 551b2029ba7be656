// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// PageMemory: a large piece of memory straight from the kernel: zeros, of which only what is
// touched takes room, in large pages where it is large. Internal to the tables.
#pragma once

#include <cstddef>
#include <utility>

namespace trireme::ps {

class PageMemory {
 public:
  PageMemory() = default;
  // At least that many bytes of zeros, at a multiple of 4 KiB, of 2 MiB where they are that many.
  // Throws std::bad_alloc.
  explicit PageMemory(std::size_t bytes);
  ~PageMemory();
  PageMemory(PageMemory&& other) noexcept
      : begin_(std::exchange(other.begin_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  PageMemory& operator=(PageMemory&& other) noexcept {
    std::swap(begin_, other.begin_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::byte* begin() const { return begin_; }

 private:
  std::byte* begin_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace trireme::ps
