// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/large_pages.h"

#include <sys/mman.h>

#include <utility>

#include "trireme/base/error.h"
#include "trireme/ops/memory/block_cache.h"

namespace trireme::ps {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kHugePage = std::size_t{2} << 20;  // of x86-64 and of 4 KiB-page arm64

std::size_t rounded_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

LargePages::LargePages(std::size_t bytes, Use use) {
  const bool huge = bytes >= 2 * kHugePage;
  bytes_ = rounded_up(bytes, huge ? kHugePage : kPage);
  data_ = system_pages().map(bytes_, huge ? kHugePage : kPage);
  if (data_ == nullptr) {
    throw_error<Error>(
        "no memory for {} MiB more of a sparse table: take more servers, or fewer rows",
        (bytes_ >> 20) + 1);
  }
  // Refused where there are no huge pages: all pages are small then.
  if (!huge) {
    madvise(data_, bytes_, MADV_NOHUGEPAGE);
  } else if (use == Use::kFilledFromFront) {
    madvise(data_, kSmallBytes, MADV_NOHUGEPAGE);
  }
}

LargePages::LargePages(LargePages&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

LargePages& LargePages::operator=(LargePages&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

LargePages::~LargePages() {
  if (data_ != nullptr) system_pages().unmap(data_, bytes_);
}

}  // namespace trireme::ps
