// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a thread says to the operations of its passes, by c10::ThreadLocalDebugInfo: LibTorch takes
// it along to the threads of a backward pass, on a CUDA device others than the caller's. Kinds of
// our own, beyond those that LibTorch names.
#pragma once

#include <c10/util/ThreadLocalDebugInfo.h>

namespace trireme::ops::detail {

inline constexpr auto kDirectGradientsMark = static_cast<c10::DebugInfoKind>(0xD6);
inline constexpr auto kRecordingMark = static_cast<c10::DebugInfoKind>(0xD7);
inline constexpr auto kSplitMark = static_cast<c10::DebugInfoKind>(0xD8);
inline constexpr auto kTakenGradientsMark = static_cast<c10::DebugInfoKind>(0xD9);

}  // namespace trireme::ops::detail
