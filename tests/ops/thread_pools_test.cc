// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/thread_pools.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(ThreadPools, KnowsOpenMpRuntimesByTheirNames) {
  for (const char* path : {"/lib/x86_64-linux-gnu/libgomp.so.1", "libomp.so.5", "/a/libiomp5.so",
                           "/venv/torch/lib/libgomp-24e2ab19.so.1.0.0"}) {
    EXPECT_TRUE(is_openmp_runtime(path)) << path;
  }
  for (const char* path : {"", "/lib/libompitrace.so.40", "/lib/libompi.so", "/libgomp/libm.so.6",
                           "/lib/libopenblas.so.0"}) {
    EXPECT_FALSE(is_openmp_runtime(path)) << path;
  }
}

TEST(ThreadPools, OneRuntimeNeedsNoAdvice) {
  EXPECT_THAT(thread_pool_advice({.openmp_runtimes = {"/lib/libgomp.so.1"}}), IsEmpty());
  EXPECT_THAT(thread_pool_advice({}), IsEmpty());
}

TEST(ThreadPools, EachPoolTooManyIsToldWithItsCure) {
  EXPECT_THAT(
      thread_pool_advice({{"/lib/libgomp.so.1", "/venv/libiomp5.so"}, true}),
      ElementsAre(AllOf(HasSubstr("2 OpenMP runtimes"), HasSubstr("/lib/libgomp.so.1, /venv/lib")),
                  HasSubstr("install libopenblas0-openmp")));
}

TEST(ThreadPools, FindsTheRuntimeOfThisProcess) {
  EXPECT_THAT(loaded_thread_pools().openmp_runtimes, ElementsAre(HasSubstr("omp")));
}

}  // namespace
}  // namespace trireme
