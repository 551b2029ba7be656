// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// LargePages: zeroed memory from the system, touched by no one, in huge pages where it is large
// enough to fill some and the system has them. Internal to the tables.
//
//   const LargePages pages(count * sizeof(Slot));
//   auto* const slots = static_cast<Slot*>(pages.data());
#pragma once

#include <cstddef>

namespace trireme::ps {

class LargePages {
 public:
  // What a table of a few rows touches stays small: the first kSmallBytes are in small pages with
  // kFilledFromFront.
  enum class Use { kAllOver, kFilledFromFront };
  static constexpr std::size_t kSmallBytes = std::size_t{2} << 20;

  LargePages() = default;  // none
  // bytes >= 1. Throws Error where there is no memory.
  LargePages(std::size_t bytes, Use use);
  LargePages(LargePages&& other) noexcept;
  LargePages& operator=(LargePages&& other) noexcept;
  ~LargePages();

  void* data() const { return data_; }  // at a multiple of a page's size
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace trireme::ps
