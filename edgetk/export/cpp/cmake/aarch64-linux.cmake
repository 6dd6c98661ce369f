# For building on another machine:
# cmake -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux.cmake -DEDGETK_ORT_LIBRARY=/where/it/is/on/the/board
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
