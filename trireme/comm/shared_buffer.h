// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Memory that collectives use where it is.
//
// The ranks of a host cannot look into each other's heaps: what they exchange is copied into shared
// memory by one and out of it by the other. Memory from Group::allocate_shared() is shared memory
// itself. A collective whose data lies there on all ranks of the host reads and writes it in place,
// which is several times faster for anything that does not fit a cache (docs/collectives.md has the
// figures). Made for what travels at every step: gradients, parameters, activations.
//
//   const SharedBuffer memory = world->allocate_shared(count * sizeof(float));  // zeros
//   const Buffer gradients{memory.data(), count, DType::kF32};
//   world->all_reduce(gradients);
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

namespace trireme {

// Owns the memory; movable. May outlive its group and its world. Any thread may destroy it, once
// the operations that use it are done. After an operation has failed, other ranks may still be
// writing to buffers that it was given.
class SharedBuffer {
 public:
  SharedBuffer() = default;
  SharedBuffer(std::shared_ptr<void> memory, std::size_t bytes)
      : memory_(std::move(memory)), bytes_(bytes) {}
  SharedBuffer(SharedBuffer&& other) noexcept
      : memory_(std::move(other.memory_)), bytes_(std::exchange(other.bytes_, 0)) {}
  SharedBuffer& operator=(SharedBuffer&& other) noexcept {
    memory_ = std::move(other.memory_);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }

  // Starts at a page. Null for no bytes.
  void* data() const { return memory_.get(); }
  std::size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<void> memory_;
  std::size_t bytes_ = 0;
};

}  // namespace trireme
