// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Where the buffers of a message engine lie, and who computes there: the host's memory, or a CUDA
// device's.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "trireme/comm/reduction_tree.h"

namespace trireme {

class Memory {
 public:
  virtual ~Memory() = default;

  // Scratch memory; grows to at least the given size and keeps its place until it has to grow.
  class Scratch {
   public:
    virtual ~Scratch() = default;
    virtual std::byte* reserve(std::size_t bytes) = 0;
  };
  virtual std::unique_ptr<Scratch> make_scratch() = 0;

  // True when the host may read and write it: small data may then travel inside other messages.
  virtual bool is_host() const = 0;
  // The ranges may not overlap, unless they are the same.
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;
  virtual void reduce(const NodeReduction& reduction, std::span<const void* const> inputs,
                      void* out, std::int64_t count) = 0;
};

std::unique_ptr<Memory> make_host_memory();

}  // namespace trireme
