// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Where releases of LibTorch differ and our code must not: the one place that knows of it.
#pragma once

#include <c10/core/Allocator.h>

#include <cstddef>
#include <cstring>

namespace trireme {

// An allocator for LibTorch of any release: 1.13 calls allocate() on a const one, 2.x on another,
// and asks for copy_data() beside. What the release at hand does not know is a function more.
class TorchAllocator : public c10::Allocator {
 public:
  // NOLINTBEGIN(modernize-use-override): which of them overrides is what differs.
  c10::DataPtr allocate(std::size_t bytes) const { return allocate_bytes(bytes); }
  c10::DataPtr allocate(std::size_t bytes) { return allocate_bytes(bytes); }
  void copy_data(void* to, const void* from, std::size_t bytes) const {
    std::memcpy(to, from, bytes);
  }
  // NOLINTEND(modernize-use-override)

 private:
  // As c10::Allocator says of allocate().
  virtual c10::DataPtr allocate_bytes(std::size_t bytes) const = 0;
};

}  // namespace trireme
