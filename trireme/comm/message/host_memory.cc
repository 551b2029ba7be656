// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <cstring>

#include "trireme/comm/message/memory.h"

namespace trireme {
namespace {

// Not a vector: what is reserved is not set to zero, and what it held is not copied.
class HostScratch final : public Memory::Scratch {
 public:
  std::byte* reserve(std::size_t bytes) override {
    if (bytes > size_) {
      data_.reset();
      data_ = std::make_unique_for_overwrite<Line[]>((bytes + sizeof(Line) - 1) / sizeof(Line));
      size_ = bytes;
    }
    return size_ == 0 ? nullptr : data_[0].bytes;
  }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::unique_ptr<Line[]> data_;
  std::size_t size_ = 0;
};

class HostMemory final : public Memory {
 public:
  std::unique_ptr<Scratch> make_scratch() override { return std::make_unique<HostScratch>(); }
  bool is_host() const override { return true; }
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
  }
  void reduce(const NodeReduction& reduction, std::span<const void* const> inputs, void* out,
              std::int64_t count) override {
    reduce_nodes(reduction, inputs, out, count);
  }
};

}  // namespace

std::unique_ptr<Memory> make_host_memory() { return std::make_unique<HostMemory>(); }

}  // namespace trireme
