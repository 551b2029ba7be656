// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// detail::classify_blocks of split.h, once per vector instruction set (Highway picks at run time).
#include <cstdint>
#include <cstring>

#include "trireme/data/split.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "trireme/data/classify_blocks.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace trireme::detail {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr hn::CappedTag<std::uint8_t, kBlockBytes> kBytes;

template <class Mask>
void put_bits(Mask mask, std::size_t at, std::uint64_t& bits) {
  std::uint8_t packed[8] = {};
  hn::StoreMaskBits(kBytes, mask, packed);
  std::uint64_t value = 0;
  std::memcpy(&value, packed, sizeof(value));
  bits |= value << at;
}

void ClassifyBlocks(const char* bytes, std::size_t num_blocks, BlockMasks* masks) {
  const auto up_to = [](auto value, auto first, std::uint8_t count) {
    return hn::Lt(hn::Sub(value, hn::Set(kBytes, static_cast<std::uint8_t>(first))),
                  hn::Set(kBytes, count));
  };
  for (std::size_t block = 0; block < num_blocks; ++block) {
    BlockMasks out;
    for (std::size_t at = 0; at < kBlockBytes; at += hn::Lanes(kBytes)) {
      const auto byte = hn::LoadU(
          kBytes, reinterpret_cast<const std::uint8_t*>(bytes) + block * kBlockBytes + at);
      const auto lower = hn::Or(byte, hn::Set(kBytes, 0x20));
      const auto blank = hn::Eq(byte, hn::Set(kBytes, ' '));
      put_bits(up_to(lower, 'a', 26), at, out.letter);
      put_bits(up_to(byte, '0', 10), at, out.number);
      put_bits(hn::Or(blank, up_to(byte, '\t', 5)), at, out.space);
      put_bits(blank, at, out.blank);
      put_bits(hn::Eq(byte, hn::Set(kBytes, '\'')), at, out.apostrophe);
      put_bits(hn::Gt(byte, hn::Set(kBytes, 0x7F)), at, out.high);
    }
    masks[block] = out;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme::detail
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::detail {

HWY_EXPORT(ClassifyBlocks);

void classify_blocks(const char* bytes, std::size_t num_blocks, BlockMasks* masks) {
  HWY_DYNAMIC_DISPATCH(ClassifyBlocks)(bytes, num_blocks, masks);
}

}  // namespace trireme::detail
#endif  // HWY_ONCE
