// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Devices for LibTorch that are none: memory of their own in the host's heap, operations by the
// CPU's kernels, at once, on the default stream. What other streams are given, copies, happens as
// late as it may: when somebody insists on an event behind it, or when the default stream is made
// to wait for that event. So who does not wait reads what was there before, always.
//
// What a device would let pass as long as one is lucky is noted, with its kind:
//   a copy that no event orders behind the last operation on its memory;
//   an operation on memory in which a copy is under way;
//   memory that is freed before a copy in it has happened;
//   memory of the host that changes before the host knows of the end of a copy from it.
//
// LibTorch knows them as privateuseone:0 and so on; a program has them by linking this file.
// Backward passes run on a thread of LibTorch's for each, as on a GPU.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

namespace late_device {

// Their autograd threads are those of LibTorch, one each: ranks that are threads and wait for each
// other in backward passes need one each.
inline constexpr int kDevices = 4;
c10::Device device_of(int number);

// What was noted since the last call, each kind once.
std::vector<std::string> take_violations();

// Copies that have been put off, since the start of the program.
std::int64_t late_copies();

// Memory that tensors on the devices have, and the most since reset_peak().
std::int64_t bytes();
std::int64_t peak_bytes();
void reset_peak();

}  // namespace late_device
