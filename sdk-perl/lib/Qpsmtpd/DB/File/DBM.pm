package Qpsmtpd::DB::File::DBM;

# Qpsmtpd::DB in a DBM file, name.dbm in dir(), with name.dbm.lock beside it. Between lock() and unlock() it belongs to this process;
# get, set and the like need that.
#
# dir([$dir])              the folder; without an argument the first of candidate_dirs() that can be written to. Dies where none can
# candidate_dirs(@dirs)    folders to try first, in front of var/db and config beside the program
# nfs_locking([$flag])     lock by File::NFSLock, for a folder on NFS

use strict;
use warnings;

BEGIN { @AnyDBM_File::ISA = qw(DB_File GDBM_File NDBM_File) }
use AnyDBM_File;
use Fcntl qw(O_RDWR O_CREAT LOCK_EX);
use parent -norequire, 'Qpsmtpd::DB';
use Qpsmtpd::Config;
use Qpsmtpd::DB;

sub new {
    my ($class, %args) = @_;
    my $self = bless {name => $args{name} // 'qpsmtpd', candidates => []}, $class;
    $self->candidate_dirs($args{candidate_dirs} ? @{$args{candidate_dirs}} : ());
    $self->dir($args{dir}) if defined $args{dir};
    return $self;
}

sub candidate_dirs {
    my ($self, @dirs) = @_;
    $self->{candidates} = [@dirs] if @dirs;
    my $home = Qpsmtpd::Config::home();
    return (@{$self->{candidates}}, "$home/var/db", "$home/config");
}

sub dir {
    my ($self, $dir) = @_;
    if (defined $dir) {
        die "the folder $dir for the database $self->{name} is none that can be written to\n" unless -d $dir && -w _;
        return $self->{dir} = $dir;
    }
    return $self->{dir} if defined $self->{dir};
    my @candidates = $self->candidate_dirs;
    ($self->{dir}) = grep { -d $_ && -w _ } @candidates;
    return $self->{dir}
        // die "no folder for the database $self->{name}; none of these can be written to: @candidates\n";
}

sub path { return $_[0]->dir . "/$_[0]{name}.dbm" }

sub nfs_locking {
    my $self = shift;
    $self->{nfs_locking} = shift if @_;
    return $self->{nfs_locking};
}

# True, or false with a reason in $@.
sub lock {
    my $self = shift;
    return 1 if $self->{tied};
    return eval {
        my $path = $self->path;
        $self->{lock} = $self->{nfs_locking} ? _nfs_lock("$path.lock") : _flock("$path.lock");
        tie my %table, 'AnyDBM_File', $path, O_CREAT | O_RDWR, 0600 or die "$path: $!\n";
        $self->{tied} = \%table;
        1;
    } || do { my $why = $@; $self->unlock; $@ = $why; 0 };
}

sub _flock {
    my $path = shift;
    open my $handle, '>>', $path or die "$path: $!\n";
    flock $handle, LOCK_EX or die "$path: $!\n";
    return $handle;
}

sub _nfs_lock {
    my $path = shift;
    require File::NFSLock;
    return File::NFSLock->new({file => $path, lock_type => LOCK_EX, blocking_timeout => 5, stale_lock_timeout => 30})
        // die "$path: cannot be locked\n";
}

sub unlock {
    my $self = shift;
    if (my $table = delete $self->{tied}) { untie %$table }
    return delete $self->{lock} ? 1 : 0;
}

sub _table { $_[0]{tied} // die "the database $_[0]{name} is used without its lock\n" }

sub get      { $_[0]->_table->{$_[1]} }
sub mget     { my ($self, @keys) = @_; return @{$self->_table}{@keys} }
sub set      { my ($self, $key, $value) = @_; return $self->_table->{$key} = $value }
sub get_keys { keys %{$_[0]->_table} }
sub size     { scalar keys %{$_[0]->_table} }
sub flush    { %{$_[0]->_table} = (); return 1 }

sub delete {
    my ($self, @keys) = @_;
    my $table = $self->_table;
    my @there = grep { exists $table->{$_} } @keys;
    delete @$table{@there};
    return scalar @there;
}

1;
