// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

MachineFacts healthy() {
  MachineFacts facts;
  facts.cores = facts.cores_of_machine = 6;
  facts.vector_units = "AVX512_BF16";
  facts.blas = "OpenBLAS 0.3.21 (openmp)";
  facts.blas_f32_flops_per_s = 230e9;
  facts.f32_flops_per_s = 460e9;
  facts.bf16_flops_per_s = 940e9;
  facts.transparent_huge_pages = "madvise";
  return facts;
}

TEST(Doctor, AHealthyMachineNeedsNothing) { EXPECT_THAT(machine_advice(healthy()), IsEmpty()); }

TEST(Doctor, OpenBlasThatMistakesTheProcessor) {
  MachineFacts facts = healthy();
  facts.blas_f32_flops_per_s = 49e9;
  EXPECT_THAT(machine_advice(facts), ElementsAre(HasSubstr("OPENBLAS_CORETYPE=SkylakeX")));
  facts.vector_units = "AVX2";
  EXPECT_THAT(machine_advice(facts), ElementsAre(HasSubstr("OPENBLAS_CORETYPE=Haswell")));
  facts.blas = "reference BLAS (slow)";
  EXPECT_THAT(machine_advice(facts), ElementsAre(HasSubstr("install libopenblas0-openmp")));
}

TEST(Doctor, EachOtherFinding) {
  MachineFacts facts = healthy();
  facts.bf16_flops_per_s = 165e9;
  EXPECT_THAT(machine_advice(facts), ElementsAre(HasSubstr("train.dtype=f32")));
  facts = healthy();
  facts.cores = 4;
  EXPECT_THAT(machine_advice(facts), ElementsAre(HasSubstr("4 of 6 cores")));
  facts = healthy();
  facts.thread_pools = {{"libgomp.so.1", "libomp.so.5"}, false};
  EXPECT_THAT(machine_advice(facts), ElementsAre(HasSubstr("2 OpenMP runtimes")));
  facts = healthy();
  facts.transparent_huge_pages = "never";
  EXPECT_THAT(machine_advice(facts), ElementsAre(HasSubstr("transparent_hugepage")));
}

}  // namespace
}  // namespace trireme
