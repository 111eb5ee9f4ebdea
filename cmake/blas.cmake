# SPDX-License-Identifier: Apache-2.0
# A BLAS with CBLAS, single-threaded: the threads are ours.  BQ_BLAS names the pkg-config module or a library file.
set(BQ_BLAS "" CACHE STRING "pkg-config module or full path of a serial BLAS with CBLAS; empty: OpenBLAS serial")
add_library(bq_blas INTERFACE)
if(BQ_BLAS AND EXISTS "${BQ_BLAS}")
  target_link_libraries(bq_blas INTERFACE "${BQ_BLAS}")
elseif(BQ_BLAS)
  pkg_check_modules(BLAS REQUIRED IMPORTED_TARGET ${BQ_BLAS})
  target_link_libraries(bq_blas INTERFACE PkgConfig::BLAS)
else()
  find_library(BQ_OPENBLAS_SERIAL openblas
    PATHS /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-serial NO_DEFAULT_PATH)
  find_path(BQ_CBLAS_INCLUDE cblas.h
    PATHS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-serial NO_DEFAULT_PATH)
  if(NOT BQ_OPENBLAS_SERIAL OR NOT BQ_CBLAS_INCLUDE)
    message(FATAL_ERROR "no serial OpenBLAS: install libopenblas-serial-dev, or set BQ_BLAS")
  endif()
  target_link_libraries(bq_blas INTERFACE "${BQ_OPENBLAS_SERIAL}")
  target_include_directories(bq_blas INTERFACE "${BQ_CBLAS_INCLUDE}")
endif()
