"""Operations worth more than one torch call, one a file, each with a plain twin that tests compare it with."""
