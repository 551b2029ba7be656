// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The smallest program: ranks that add their numbers.
//
// Run alone:            ./01_hello_group                          prints:  1 ranks, sum 1
// Run on three ranks:   torchrun --no-python --nproc-per-node 3 ./01_hello_group
//                       mpirun -n 3 ./01_hello_group              print:   3 ranks, sum 6

#include <cstdio>
#include <span>
#include <vector>

#include "trireme/launch/init.h"

int main() {
  const auto world = trireme::init();  // one rank alone, or what launched us says
  std::vector<float> numbers(3, static_cast<float>(world->rank() + 1));
  world->all_reduce(trireme::buffer_of(std::span(numbers)));
  if (world->rank() == 0) std::printf("%d ranks, sum %.0f\n", world->size(), numbers[0]);
  world->close();
}
